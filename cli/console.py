"""What the commands print: one console, on which any text is safe; progress for whatever takes longer than a second."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
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
        typer.echo(json.dumps(document, indent=2, default=str))
    elif texts:
        console.print(*texts, sep="\n")


_PLAIN_INTERVAL = 5.0  # seconds until the first progress line where the output is a file or a pipe; then twice as many
_PLAIN_MOST = 60.0


class _Progress:
    """How far something has come, in words; threads may report, and others ask."""

    def __init__(self, description: str, total: int | None, *, in_bytes: bool) -> None:
        self.description, self.total, self.in_bytes = description, total, in_bytes
        self.done = self._first = 0
        self._began = self._first_at = monotonic()

    def report(self, done: int, total: int | None = None) -> None:
        """Note what is done and, where it was not known before, the total."""
        if not self.done:  # what was there before, as of a download that goes on, says nothing of the rate
            self._first, self._first_at = done, monotonic()
        self.done, self.total = done, total or self.total

    def __rich__(self) -> str:
        """Rate and time left, where they are known, and the time that has passed."""
        passed = timedelta(seconds=int(monotonic() - self._began))
        if not self.total or self.done <= self._first:
            return f"{passed}"
        rate = (self.done - self._first) / max(monotonic() - self._first_at, 0.001)
        counted = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.0f} s each"
        speed = f"{rate / 1e6:.1f} MB/s" if self.in_bytes else counted
        return f"{speed}, {passed}, {timedelta(seconds=round((self.total - self.done) / rate))} left"

    def __str__(self) -> str:
        count = f" {self.done:,}/{self.total:,}{' bytes' * self.in_bytes}" if self.total else ""
        return f"{self.description}{count} ({self.__rich__()})"


@contextmanager
def progress_bar(
    description: str, total: int | None = None, *, in_bytes: bool = False
) -> Iterator[Callable[..., None]]:
    """Show progress: a live bar in a terminal, a line now and then elsewhere; without a total, a spinner.

    Call what it yields with what is done so far and, where it was not known before, the total; threads may, too.
    """
    state = _Progress(description, total, in_bytes=in_bytes)
    if console.is_terminal:
        count = progress.DownloadColumn() if in_bytes else progress.MofNCompleteColumn()
        text = progress.TextColumn("{task.description}", markup=False)
        counted = [progress.BarColumn(), count] if in_bytes or total is not None else []
        columns = (progress.SpinnerColumn(), text, *counted, progress.RenderableColumn(state))
        with progress.Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(description, total=total)

            def report(done: int, total: int | None = None) -> None:
                state.report(done, total)
                bar.update(task, completed=done, total=state.total)

            yield report
        return
    ended = threading.Event()
    thread = threading.Thread(target=_print_lines, args=(state, ended), daemon=True)
    thread.start()
    try:
        yield state.report
    finally:
        ended.set()
        thread.join()


def _print_lines(state: _Progress, ended: threading.Event) -> None:
    interval = _PLAIN_INTERVAL
    while not ended.wait(interval):
        error_console.print(str(state))  # no part of a result
        interval = min(2 * interval, _PLAIN_MOST)


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
