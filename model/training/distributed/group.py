"""The workers that train one model together, and what they tell one another.

A worker is a process with its own share of every batch. Everything here works for one worker, too, without a process
group, so that the rest of the program is written once.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed

from ..config import JOIN_SECONDS
from .meeting import keep_store

# How often a worker looks whether torchrun still lives.
PARENT_SECONDS = 0.5
# By which a worker knows its torchrun, if that is ours: it may be gone before the worker can ask who its parent is.
PARENT_VARIABLE = "TRAINING_LAUNCHER_PID"

T = TypeVar("T")

# How long a worker waits for the others in one exchange: the slowest may still be decoding its pictures.
EXCHANGE_TIMEOUT = datetime.timedelta(minutes=30)


# The exit code of a worker that ends because another one has: the reason is that one's.
LOST_PEERS = 75
# A worker that fails is noticed by its own host first, and by the others through their lost connection.
REASON_SECONDS = 5.0
_FAILURE = "failure"
_LOST_CONNECTION = re.compile(
    r"connection (closed|reset|refused|was)|broken pipe|socket|timed out|application timeout", re.IGNORECASE
)


class DistributedError(Exception):
    """The workers are not the ones that were asked for, or cannot reach each other. The message is for a person."""


class LostPeersError(Exception):
    """Another worker has ended in the middle of the training."""


@dataclass(frozen=True)
class Workers:
    """One worker's view of the group.

    Attributes
    ----------
    rank : int
        Which one this is, from 0.
    size : int
        How many there are on all hosts.
    local_rank, local_size : int
        The same among those on this host.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this worker writes the files and prints the metrics."""
        return self.rank == 0

    def share(self, count: int, *, multiple: int = 1) -> slice:
        """Return this worker's part of so many things.

        The parts are consecutive, cover everything once, and differ by at most `multiple`; each but the last one that
        is not empty is divisible by it.
        """
        groups = math.ceil(count / multiple)
        start, stop = (multiple * (groups * rank // self.size) for rank in (self.rank, self.rank + 1))
        return slice(min(start, count), min(stop, count))

    def barrier(self) -> None:
        """Wait until every worker is here."""
        if self.size > 1:
            self.all_gather(None)

    def all_gather(self, value: T) -> list[T]:
        """Return every worker's value (anything that can be pickled) in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # all of them are there now

    def broadcast(self, value: T) -> T:
        """Return the main worker's value; what the others give is ignored."""
        if self.size == 1:
            return value
        values: list[T | None] = [value if self.is_main else None]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[return-value]

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add up the workers' numbers, each position for itself.

        The sums are exact before they are rounded to a float (`math.fsum`), so that they are the same on every worker.
        """
        return [math.fsum(column) for column in zip(*self.all_gather(list(values)), strict=True)]

    def any(self, *flags: bool) -> list[bool]:
        """Return for each flag whether it is set on any worker; cheap enough for every step."""
        if self.size == 1:
            return list(flags)
        raised = torch.tensor(flags, dtype=torch.uint8)
        torch.distributed.all_reduce(raised, torch.distributed.ReduceOp.MAX)
        return [bool(flag) for flag in raised.tolist()]


ALONE = Workers()
"""The only worker there is."""


@contextlib.contextmanager
def joined(
    expected_size: int, environment: Mapping[str, str] = os.environ, *, join_timeout: float = JOIN_SECONDS
) -> Iterator[Workers]:
    """Join the group that torchrun's variables describe, for the duration of the block.

    Parameters
    ----------
    expected_size : int
        Hosts times processes per host, as the arguments have it.
    environment : mapping
        RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as `torchrun` sets them. Without
        RANK this is the only worker.
    join_timeout : float
        Seconds after which a worker that has not joined is given up.

    Raises
    ------
    DistributedError
        When the group is not of the size that was asked for, or does not come together.
    LostPeersError
        When another worker has failed, in the block or while they join.
    """
    size = int(environment.get("WORLD_SIZE", 1))
    if size != expected_size:
        raise DistributedError(
            f"WORLD_SIZE is {size}, but the arguments ask for {expected_size} workers, hosts times processes per host; "
            "make --hosts and --processes-per-host fit what torchrun was told, or start train.py without torchrun"
        )
    if size == 1:
        yield ALONE
        return
    workers = Workers(
        int(environment["RANK"]), size, int(environment["LOCAL_RANK"]), int(environment["LOCAL_WORLD_SIZE"])
    )
    _end_with_parent(environment)
    try:
        _join(workers, environment, join_timeout)
        yield workers
    except Exception as error:
        if _is_lost_connection(error):
            raise LostPeersError(f"worker {workers.rank} of {size} ends because another one did ({error})") from error
        with contextlib.suppress(RuntimeError):  # where another worker keeps the store, it may be gone with that one
            Failures.of_worker(environment).report(str(error) or type(error).__name__)
        raise
    torch.distributed.destroy_process_group()


def _join(workers: Workers, environment: Mapping[str, str], seconds: float) -> None:
    # Small messages go over gloo on both kinds of machine, gradients on a GPU over NCCL.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(workers.local_rank)
    try:
        store = _meet(workers, environment, seconds)
        torch.distributed.init_process_group(
            backend, store=store, rank=workers.rank, world_size=workers.size, timeout=EXCHANGE_TIMEOUT
        )
    except (RuntimeError, ValueError) as error:  # torch's own errors are RuntimeErrors
        if _others_failed(environment):
            raise LostPeersError(f"worker {workers.rank} of {workers.size} ends because another one did") from error
        raise DistributedError(f"worker {workers.rank} of {workers.size} cannot join the others: {error}") from error


def _meet(workers: Workers, environment: Mapping[str, str], seconds: float) -> torch.distributed.Store:
    """Return the store of the workers once all of them are there.

    torch would wait for them, too, but as long as for an exchange, and not say for whom.
    """
    limit = datetime.timedelta(seconds=seconds)
    if workers.is_main and environment.get("TORCHELASTIC_USE_AGENT_STORE") != str(True):
        # torchrun does not keep a store for its workers, so the first of these keeps one.
        store = keep_store(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), seconds=seconds)
    else:
        store, _, _ = next(torch.distributed.rendezvous("env://", timeout=limit))
    present = {rank: f"present/{rank}" for rank in range(workers.size)}
    store.set(present[workers.rank], "")
    try:
        store.wait(list(present.values()), limit)
    except torch.distributed.DistStoreError as error:
        absent = [str(rank) for rank, key in present.items() if not store.check([key])]
        raise DistributedError(
            f"worker {', '.join(absent)} of {workers.size} did not join the others within {seconds:g} seconds. "
            "--join-timeout sets how long they wait for each other"
        ) from error
    return store


def _others_failed(environment: Mapping[str, str]) -> bool:
    try:
        return Failures.of_worker(environment).reason(REASON_SECONDS) is not None
    except RuntimeError:  # the store's host may be what has failed
        return False


class Failures:
    """Where the first worker that fails leaves its reason for all hosts.

    Parameters
    ----------
    store : torch.distributed.Store
        The one in which the workers meet.
    """

    def __init__(self, store: torch.distributed.Store) -> None:
        self._store = store

    @classmethod
    def of_worker(cls, environment: Mapping[str, str]) -> Failures:
        """Connect to the store that torchrun has told this worker of."""
        address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        return cls(torch.distributed.TCPStore(address, port, is_master=False, timeout=datetime.timedelta(seconds=10)))

    def report(self, reason: str) -> None:
        """Leave a reason, unless there is one."""
        with contextlib.suppress(RuntimeError):  # the store's host may be what has failed
            self._store.compare_set(_FAILURE, "", reason)

    def reason(self, seconds: float) -> str | None:
        """Return the reason, waiting for it so long."""
        try:
            self._store.wait([_FAILURE], datetime.timedelta(seconds=seconds))
            return self.reason_so_far()
        except RuntimeError:
            return None

    def reason_so_far(self) -> str | None:
        """Return the reason if there is one by now.

        Raises
        ------
        RuntimeError
            When the store is gone.
        """
        return self._store.get(_FAILURE).decode() if self._store.check([_FAILURE]) else None


def _is_lost_connection(error: Exception) -> bool:
    # Gloo's errors have no class and no code of their own.
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and _LOST_CONNECTION.search(str(error)) is not None
    )


def _end_with_parent(environment: Mapping[str, str] = os.environ) -> None:
    """End this process when torchrun is gone, which may have had no chance to end its workers."""
    parent = int(environment.get(PARENT_VARIABLE, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(LOST_PEERS)

    threading.Thread(target=watch, name="parent", daemon=True).start()
