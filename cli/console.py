"""What the commands print: one console, progress for whatever takes longer than a second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

console = Console(highlight=False, soft_wrap=True)
error_console = Console(stderr=True, highlight=False, soft_wrap=True)

_PLAIN_INTERVAL = 5.0  # seconds between progress lines where the output is a file or a pipe


@contextmanager
def progress_bar(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show progress: a live bar in a terminal, a line every few seconds elsewhere.

    Parameters
    ----------
    description : str
        What is being done, in a few words.
    total : int, optional
        How many steps there are; None for a spinner.

    Yields
    ------
    Callable[[int], None]
        Call it with the number of steps done so far. Safe to call from several threads.
    """
    if console.is_terminal:
        columns = [SpinnerColumn(), TextColumn("{task.description}")]
        columns += [BarColumn(), MofNCompleteColumn()] if total is not None else []
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
            task = progress.add_task(description, total=total)
            yield lambda done: progress.update(task, completed=done)
        return
    started = last = monotonic()
    lock = threading.Lock()

    def report(done: int) -> None:
        nonlocal last
        with lock:
            if monotonic() - last >= _PLAIN_INTERVAL:
                last = monotonic()
                count = f" {done}/{total}" if total is not None else ""
                console.print(f"{description}{count} ({last - started:.0f} s)")

    yield report
