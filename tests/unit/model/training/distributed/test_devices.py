"""Where each worker computes, and how the workers of GPUs talk."""

from __future__ import annotations

import pytest
import torch

from model.training.arguments import ArgumentsError
from model.training.distributed import group
from model.training.distributed.group import DistributedError, Workers, choose_device, joined
from model.training.distributed.launch import processes_per_host

TWO = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}


@pytest.fixture
def gpus(monkeypatch):
    def found(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)

    return found


@pytest.mark.parametrize(
    ("asked", "found", "local_rank", "local_size", "device"),
    [
        (None, 0, 1, 2, "cpu"), (0, 4, 1, 2, "cpu"), (None, 4, 0, 1, "cuda:0"), (1, 4, 0, 1, "cuda:0"),
        (None, 4, 3, 4, "cuda:3"), (2, 4, 1, 2, "cuda:1"),
    ],
)  # fmt: skip
def test_a_worker_has_the_gpu_of_its_local_rank_or_the_cpu(asked, found, local_rank, local_size, device, gpus):
    gpus(found)
    assert choose_device(asked, Workers(local_rank, local_size, local_rank, local_size)) == torch.device(device)


@pytest.mark.parametrize(
    ("asked", "found", "local_rank", "local_size", "error", "message"),
    [
        (None, 2, 0, 4, DistributedError, "4 processes per host, but each needs a GPU of its own and there are 2"),
        (1, 4, 0, 4, DistributedError, "4 processes per host, .* there are 1 .*--nproc-per-node"),
        (None, 2, 2, 1, DistributedError, "3 processes per host, .* there are 2"),
        (8, 4, 0, 1, ArgumentsError, "--num-gpus .* is 8, but torch finds 4"),
    ],
)
def test_missing_gpus_are_named(asked, found, local_rank, local_size, error, message, gpus):
    gpus(found)
    with pytest.raises(error, match=message):
        choose_device(asked, Workers(local_rank, local_size, local_rank, local_size))
    if local_size > 1:
        with pytest.raises(error, match=message):
            processes_per_host(local_size, asked)


@pytest.mark.parametrize(
    ("asked", "found", "backend", "devices"),
    [(None, 2, "cpu:gloo,cuda:nccl", [torch.device("cuda", 1)]), (0, 2, "gloo", []), (None, 0, "gloo", [])],
)
def test_only_workers_that_compute_on_gpus_take_one_and_talk_over_nccl(
    asked, found, backend, devices, gpus, monkeypatch
):
    gpus(found)
    backends, taken = [], []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda name, **_: backends.append(name))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(group, "_end_with_parent", lambda _: None)
    with joined(1, TWO, gpus=asked) as workers:
        assert workers == Workers(1, 2, 1, 2)
    assert (backends, taken) == ([backend], devices)
