"""Work spread over threads, ended in an orderly way by an error or Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from model.core.machine import available_vcpus

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_unordered(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Generator[tuple[Item, Result], None, None]:
    """Call a function for every item in several threads; yield each item with its result as soon as it is there.

    When a call raises, or the iteration stops (with Ctrl-C, for example), the calls that run are finished, the
    others never begin. There are as many threads as processors if not told otherwise; `report` is told what is done.
    """
    pool = ThreadPoolExecutor(threads or available_vcpus())
    try:
        futures = {pool.submit(function, item): item for item in items}
        for done, future in enumerate(as_completed(futures), start=1):
            yield futures[future], future.result()
            report(done)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
