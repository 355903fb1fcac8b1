from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from engine_fixtures import CPU, pretend_gpu

from model.training.data.ahead import ahead, rows

GPU = torch.device("cuda")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_rows_are_those_that_were_chosen(dtype):
    array = np.arange(24).reshape(4, 2, 3).astype(dtype)
    picked = rows(array, np.array([3, 0, 3]), CPU)
    np.testing.assert_array_equal(picked.numpy(), array[[3, 0, 3]], strict=True)


def test_for_a_gpu_the_next_item_is_made_by_a_thread_and_memory_is_reused_only_when_the_steps_are_done(monkeypatch):
    main, side = pretend_gpu(monkeypatch)
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(6):
            assert threading.current_thread() is not threading.main_thread()
            assert side.other_done >= number - 1, "the step of the item before the last one"
            side.given += 1
            made.append(number)
            yield number

    for number in ahead(items(), GPU):
        assert main.other_done == number + 1, "the item is there"
        assert len(made) <= number + 2, "one ahead, not more"
        main.given += 1
    assert made == list(range(6))


def test_an_error_of_the_thread_is_the_callers_and_on_a_cpu_nothing_is_made_ahead(monkeypatch):
    pretend_gpu(monkeypatch)

    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    first = ahead(items(), CPU)
    assert next(first) == 1
    with pytest.raises(OSError, match="gone"):
        list(ahead(items(), GPU))
