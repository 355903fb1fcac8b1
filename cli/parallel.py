"""Work spread over threads, ended in an orderly way by an error or Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_unordered(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int
) -> Generator[tuple[Item, Result], None, None]:
    """Call a function for every item in several threads; yield each item with its result as soon as it is there.

    When a call raises, or the iteration stops (with Ctrl-C, for example), the calls that run are finished, the
    others never begin.

    Parameters
    ----------
    function
        Safe to call from several threads. They are worth it where it waits, or computes without the interpreter lock,
        as decoding, hashing and compressing do.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        futures = {pool.submit(function, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
