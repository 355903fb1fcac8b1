"""The group of workers: their shares, what they tell one another, and how they hear that one has ended."""

from __future__ import annotations

import itertools
import os
import signal
import time
from typing import Any

import psutil
import pytest
from distributed_fixtures import run_workers, start_workers

from model.training.distributed.group import ALONE, DistributedError, LostPeersError, Workers, joined


@pytest.mark.parametrize(("size", "multiple"), [*itertools.product((1, 2, 3, 7), (1, 2))])
def test_the_shares_cover_everything_once_and_are_alike(size, multiple):
    for count in range(30):
        shares = [range(count)[Workers(rank, size).share(count, multiple=multiple)] for rank in range(size)]
        assert list(itertools.chain(*shares)) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= multiple
        assert all(share.start % multiple == 0 for share in shares if share)


def test_a_worker_alone_needs_no_group():
    with joined(1, {}) as workers:
        assert workers == ALONE
        assert workers.is_main
        assert workers.all_gather({"a": 1}) == [{"a": 1}]
        assert workers.broadcast("b") == "b"
        assert workers.sum([0.1, 2.0]) == [0.1, 2.0]
        assert workers.any(True, False) == [True, False]
        assert range(7)[workers.share(7)] == range(7)


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}])
def test_a_torchrun_on_fewer_hosts_than_the_arguments_name_is_refused(environment):
    # Each host would train a whole model of its own.
    with (
        pytest.raises(DistributedError, match=r"on 1 of the 4 hosts .*start it with --nnodes 4"),
        joined(4, environment),
    ):
        pass


def exchange() -> tuple[Any, ...]:
    with joined() as workers:
        heard = (
            workers.all_gather(f"worker {workers.rank}"),
            workers.broadcast(workers.rank + 7),
            workers.sum([0.1 * (workers.rank + 1), -1.0]),
            workers.any(workers.rank == 2, False),
        )
        listening = {entry.laddr.ip for entry in psutil.Process().net_connections("inet") if entry.status == "LISTEN"}
        workers.all_gather(None)
        return *heard, workers, listening


def test_what_workers_tell_one_another_is_the_same_for_all_and_stays_on_their_machine():
    for rank, (gathered, broadcast, total, raised, workers, listening) in enumerate(run_workers(3, exchange)):
        assert gathered == ["worker 0", "worker 1", "worker 2"]
        assert broadcast == 7
        assert total == [pytest.approx(0.6, abs=1e-15), -3.0]
        assert raised == [True, False]
        assert workers == Workers(rank, 3, rank, 3)
        assert listening <= {"127.0.0.1"}


def one_fails() -> str:
    try:
        with joined() as workers:
            if workers.rank == 1:
                raise ValueError("no such breed")
            workers.all_gather(None)
    except (ValueError, LostPeersError) as error:
        return type(error).__name__
    return "nothing happened"


def test_a_worker_that_fails_ends_the_others_at_once():
    started = time.monotonic()
    assert run_workers(3, one_fails) == ["LostPeersError", "ValueError", "LostPeersError"]
    assert time.monotonic() - started < 20


def wait_for_the_killed() -> str:
    with pytest.raises(LostPeersError, match="another one did"), joined() as workers:
        if workers.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        workers.any(False)
    return "noticed"


def test_a_worker_that_is_killed_ends_the_others_at_once():
    _meeting, (survivor, killed) = start_workers(2, wait_for_the_killed)
    assert survivor.result(20) == "noticed"
    killed.process.join(20)
    assert killed.process.exitcode == -signal.SIGKILL
