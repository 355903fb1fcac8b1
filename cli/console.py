"""What the commands print: one console, on which any text is safe; progress for whatever takes longer than a second."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich import progress
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from cli.errors import NotAgreedError

# What colours a line of a log: left out. Every other sequence shows what it is.
_COLOUR = re.compile("\x1b\\[[0-9;:]*m")
# Controls but for tab and line feed, marks that reorder a line, its separators, and halves of characters, which a file
# name that is no UTF-8 has.
_UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """Return text without anything that a terminal would obey: controls are escaped as Python escapes them."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], _COLOUR.sub("", text))


class SafeConsole(Console):
    """A console on which text from anywhere is text: no markup, and no control but the console's own.

    Styles are given as such (`style=…`, `rich.text.Text`), never inside of text.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make text printable before rich measures its width."""
        return super().render_str(plain(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does; all that is printed, in whatever it is nested, comes through here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


console = SafeConsole()
error_console = SafeConsole(stderr=True)


def _keep_for_json(as_json: bool) -> bool:
    console.stderr = as_json  # standard output is the document's
    return as_json


#: Options of several commands.
AsJson = Annotated[
    bool,
    typer.Option("--json", callback=_keep_for_json, help="Print one JSON document; all else goes to standard error."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def show(document: Any, *texts: RenderableType) -> None:
    """Print the result of a command: with --json the document, else what a person reads."""
    if console.stderr:
        typer.echo(json.dumps(document, default=str))
    elif texts:
        console.print(*texts, sep="\n")


_PLAIN_INTERVAL = 5.0  # seconds until the first progress line where the output is a file or a pipe; then twice as many
_PLAIN_MOST = 60.0
_RATE_SECONDS = 3600.0  # over which a rate is taken: an epoch or a training job may take minutes


class _Pace(progress.ProgressColumn):
    def render(self, task: progress.Task) -> Text:
        """Return the time that has passed and, where they are known, rate and time left."""
        passed, left, speed = timedelta(seconds=int(task.elapsed or 0)), task.time_remaining, task.speed
        if not speed or left is None:
            return Text(f"{passed}")
        counted = f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.0f} s each"
        rate = f"{speed / 1e6:.1f} MB/s" if task.fields["in_bytes"] else counted
        return Text(f"{passed}, {rate}, {timedelta(seconds=round(left))} left")


@contextmanager
def progress_bar(what: str, total: int | None = None, *, in_bytes: bool = False) -> Iterator[Callable[..., None]]:
    """Show progress: a live bar in a terminal, a line now and then elsewhere; without a total, a spinner.

    Call what it yields with what is done so far and, where it was not known before, the total; threads may, too.
    """
    count = progress.DownloadColumn() if in_bytes else progress.MofNCompleteColumn()
    counted = [progress.BarColumn(), count] if in_bytes or total is not None else []
    columns = (progress.SpinnerColumn(), progress.TextColumn("{task.description}", markup=False), *counted, _Pace())
    how: Any = {"transient": True, "disable": not console.is_terminal, "speed_estimate_period": _RATE_SECONDS}
    with progress.Progress(*columns, console=console, **how) as bar:
        task, ended = bar.add_task(what, total=total, in_bytes=in_bytes), threading.Event()
        if bar.disable:
            threading.Thread(target=_print_lines, args=(bar.tasks[0], ended), daemon=True).start()
        try:
            yield lambda done, total=total: bar.update(task, completed=done, total=total)
        finally:
            ended.set()


def _print_lines(task: progress.Task, ended: threading.Event) -> None:
    interval = _PLAIN_INTERVAL
    while not ended.wait(interval):
        count = f" {task.completed:,}/{task.total:,}{' bytes' * task.fields['in_bytes']}" if task.total else ""
        error_console.print(f"{task.description}{count} ({_Pace().render(task)})")  # no part of a result
        interval = min(2 * interval, _PLAIN_MOST)


def open_in_browser(address: str) -> None:
    """Open an address where there is a desktop; a browser in text mode must not take the terminal."""
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)


def ask(question: str, *, yes: bool | None = None) -> None:
    """Ask before something is done that costs or destroys, unless --yes was given; None: the command has no --yes.

    A NotAgreedError says that the answer is no.
    """
    try:
        if not yes and not typer.confirm(question, err=True):
            raise NotAgreedError("Not agreed to, so nothing is done.")
    except typer.Abort:  # Ctrl-C, or nobody there to answer
        interrupt = KeyboardInterrupt()
        if yes is not None:
            interrupt.add_note("Where nobody can answer: --yes")
        raise interrupt from None
