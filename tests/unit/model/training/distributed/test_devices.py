"""Where each worker computes, and how the workers of GPUs talk."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from model.training.arguments import ArgumentsError
from model.training.distributed import group
from model.training.distributed.group import DistributedError, Workers, choose_device, joined
from model.training.distributed.launch import processes_per_host

TWO = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}


@pytest.fixture
def gpus(monkeypatch):
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("asked", "found", "processes", "place"),
    [
        (None, 0, None, (1, "cpu")), (None, 0, 2, (2, "cpu")), (0, 4, None, (1, "cpu")), (0, 2, 3, (3, "cpu")),
        (None, 4, None, (4, "cuda:3")), (2, 4, None, (2, "cuda:1")), (1, 4, 1, (1, "cuda:0")),
        (None, 2, 4, "4 processes per host, but each needs a GPU of its own and there are 2 "),
        (1, 4, 4, "4 processes per host, .* there are 1 .*--nproc-per-node"),
        (8, 4, None, "--num-gpus .* is 8, but torch finds 4"),
    ],
)  # fmt: skip
def test_a_host_runs_a_process_for_each_gpu_or_as_it_is_told_and_each_has_the_gpu_of_its_local_rank(
    asked, found, processes, place, gpus
):
    gpus(found)
    with pytest.raises((ArgumentsError, DistributedError), match=place) if isinstance(place, str) else nullcontext():
        count = processes_per_host(processes, asked)
        assert (count, str(choose_device(asked, Workers(count - 1, count, count - 1, count)))) == place


def test_a_torchrun_with_more_processes_than_gpus_is_refused(gpus):
    gpus(2)
    with pytest.raises(DistributedError, match=r"3 processes per host, .* there are 2"):
        choose_device(None, Workers(local_rank=2))


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
