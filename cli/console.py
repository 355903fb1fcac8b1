"""What the commands print: one console, on which any text is safe; progress for whatever takes longer than a second."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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


#: Options of several commands.
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

console = SafeConsole()
error_console = SafeConsole(stderr=True)

_PLAIN_INTERVAL = 5.0  # seconds between progress lines where the output is a file or a pipe


@contextmanager
def progress_bar(
    description: str, total: int | None = None, *, in_bytes: bool = False
) -> Iterator[Callable[..., None]]:
    """Show progress: a live bar in a terminal, a line every few seconds elsewhere; without a total, a spinner.

    Call what it yields with what is done so far and, where it was not known before, the total; threads may, too.
    """
    if console.is_terminal:
        columns: list[progress.ProgressColumn] = [progress.SpinnerColumn()]
        columns.append(progress.TextColumn("{task.description}", markup=False))
        if in_bytes:
            columns += [progress.BarColumn(), progress.DownloadColumn(), progress.TransferSpeedColumn()]
        elif total is not None:
            columns += [progress.BarColumn(), progress.MofNCompleteColumn()]
        columns.append(progress.TimeRemainingColumn() if in_bytes else progress.TimeElapsedColumn())
        with progress.Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(description, total=total)
            yield lambda done, total=total: bar.update(task, completed=done, total=total)
        return
    started = last = monotonic()
    lock = threading.Lock()

    def report(done: int, total: int | None = total) -> None:
        nonlocal last
        with lock:
            if monotonic() - last >= _PLAIN_INTERVAL:
                last = monotonic()
                count = f" {done:,}/{total:,}" if total else ""
                unit = " bytes" if in_bytes else ""
                error_console.print(f"{description}{count}{unit} ({last - started:.0f} s)")  # no part of a result

    yield report


def ask(question: str) -> None:
    """Ask before something is done that costs or destroys; raise NotAgreedError when the answer is no."""
    if not typer.confirm(question):
        raise NotAgreedError("Not agreed to, so nothing is done.")
