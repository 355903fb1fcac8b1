"""What the commands print: one console, progress for whatever takes longer than a second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

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


@contextmanager
def byte_progress(description: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show the progress of a transfer with its rate and the time that is left.

    Yields
    ------
    Callable[[int, int | None], None]
        Call it with the bytes that are done and how many there will be, None where that is unknown. What is done at the
        first call does not count as transferred.
    """
    if console.is_terminal:
        columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn()]
        columns += [TransferSpeedColumn(), TimeRemainingColumn()]
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(description, total=None)
            begun = False

            def show(done: int, total: int | None) -> None:
                nonlocal begun
                if begun:
                    progress.update(task, completed=done, total=total)
                else:
                    progress.reset(task, completed=done, total=total)
                begun = True

            yield show
        return
    started = last = monotonic()
    first: int | None = None

    def report(done: int, total: int | None) -> None:
        nonlocal last, first
        first = done if first is None or done < first else first
        now = monotonic()
        if now - last < _PLAIN_INTERVAL:
            return
        last, rate = now, (done - first) / (now - started)
        line = f"{description} {done / 1e6:,.0f} MB, {rate / 1e6:.1f} MB/s"
        if total is not None:
            left = f"{(total - done) / rate:.0f} s" if rate else "unknown"
            line = f"{description} {done / 1e6:,.0f} of {total / 1e6:,.0f} MB, {rate / 1e6:.1f} MB/s, {left} left"
        console.print(line, markup=False)

    yield report
