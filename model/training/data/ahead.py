"""Input for a GPU: copied from pinned memory while the GPU computes, by one thread that is one batch ahead."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

T = TypeVar("T")


def rows(array: npt.NDArray[Any], chosen: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    """Return rows of an array on a device; a GPU copies them by itself, from pinned memory."""
    pinned = device.type == "cuda"
    picked = torch.empty((len(chosen), *array.shape[1:]), dtype=getattr(torch, array.dtype.name), pin_memory=pinned)
    np.take(array, chosen, axis=0, out=picked.numpy(), mode="clip")  # other modes copy twice
    return picked.to(device, non_blocking=pinned)


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return always the same stream: the memory that torch has once given to a stream is not for others."""
    return torch.cuda.Stream(device)


def ahead(items: Iterator[T], device: torch.device) -> Iterator[T]:
    """Yield what an iterator makes on a device; for a GPU a thread makes the next item while the caller works."""
    if device.type != "cuda":
        yield from items
        return
    # A stream of its own: on the caller's every copy would wait for the steps before it.
    main, side = torch.cuda.current_stream(device), _side_stream(device)

    def make(released: torch.cuda.Event) -> tuple[T | None, torch.cuda.Event]:
        with torch.cuda.stream(side):
            side.wait_event(released)  # until then the item before the last one is in use, whose memory may be reused
            return next(items, None), side.record_event()

    with ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=(device,)) as thread:
        coming = thread.submit(make, main.record_event())
        while True:
            item, made = coming.result()
            if item is None:
                return
            main.wait_event(made)
            coming = thread.submit(make, main.record_event())
            yield item
