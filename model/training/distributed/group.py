"""The workers that train one model together, and what they tell one another.

Everything here works for one worker, too, without a process group, so that the rest of the program is written once.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed
import torch.multiprocessing

from ..arguments import ArgumentsError

# How long a worker waits for the others in one exchange: the slowest may still be decoding its images.
EXCHANGE_TIMEOUT = datetime.timedelta(minutes=30)
# By which a worker knows its torchrun, if train.py runs it.
PARENT_VARIABLE = "TRAINING_TORCHRUN_PID"
# The exit code of a worker that ends because another one has: the reason is that one's.
LOST_PEERS = 75
# It waits so long, so that the host whose worker failed ends first: a platform shows the reason of that one.
HEAD_START_SECONDS = 5.0
# Gloo's errors have no class and no code of their own.
_LOST_CONNECTION = re.compile(
    r"connection (closed|reset|refused|was)|broken pipe|socket|timed out|application timeout", re.IGNORECASE
)

T = TypeVar("T")


class DistributedError(Exception):
    """The workers are not those that were asked for, or cannot reach each other. The message is for a person."""


class LostPeersError(Exception):
    """Another worker has ended in the middle of the training."""


@dataclass(frozen=True)
class Workers:
    """One worker's view of the group: its rank and the world size, on all hosts and among those on this host."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this worker writes the files and prints the metrics."""
        return self.rank == 0

    def share(self, count: int, *, multiple: int = 1) -> slice:
        """Return this worker's part of `count` things."""
        return part(count, self.rank, self.size, multiple=multiple)

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
        """Add up the workers' numbers, each position for itself; exact, so the same on every worker."""
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


def part(count: int, index: int, parts: int, *, multiple: int = 1) -> slice:
    """Return one of the parts of `count` things: as large as the others, but for a `multiple`."""
    groups = math.ceil(count / multiple)
    start, stop = (multiple * (groups * edge // parts) for edge in (index, index + 1))
    return slice(min(start, count), min(stop, count))


def usable_gpus(asked: int | None) -> int:
    """Return how many of this host's GPUs to use; raise ArgumentsError when there are fewer than asked for."""
    found = torch.cuda.device_count()
    if asked is not None and asked > found:
        raise ArgumentsError(
            f"--num-gpus (SM_NUM_GPUS) is {asked}, but torch finds {found} here; use at most that many"
        )
    return found if asked is None else asked


def choose_device(asked: int | None, workers: Workers) -> torch.device:
    """Return where a worker computes: on the GPU of its local rank, or on the CPU without GPUs and with `asked` 0.

    Raises DistributedError when a host has more workers than GPUs, ArgumentsError as `usable_gpus`.
    """
    gpus = usable_gpus(asked)
    if not gpus:
        return torch.device("cpu")
    if (needed := max(workers.local_size, workers.local_rank + 1)) > gpus:
        raise DistributedError(
            f"{needed} processes per host, but each needs a GPU of its own and there are {gpus} "
            "(--num-gpus); start fewer processes (--processes-per-host, torchrun's --nproc-per-node), or use "
            "--num-gpus 0 to compute on the CPU"
        )
    return torch.device("cuda", workers.local_rank)


@contextlib.contextmanager
def joined(
    hosts: int = 1, environment: Mapping[str, str] = os.environ, *, gpus: int | None = None
) -> Iterator[Workers]:
    """Join the group that torchrun's variables describe, for the duration of the block; without them, be alone.

    `gpus` is what `choose_device` takes: the GPUs exchange their gradients over NCCL. Raises DistributedError when
    torchrun runs on fewer `hosts` than the arguments name, the workers do not come together, or a GPU is missing;
    LostPeersError when another worker has failed.
    """
    size, local_size = (int(environment.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if size // local_size < hosts:
        raise DistributedError(
            f"torchrun runs on {size // local_size} of the {hosts} hosts that --hosts (SM_HOSTS) names; "
            f"start it with --nnodes {hosts}, or start train.py without torchrun"
        )
    if size == 1:
        yield ALONE
        return
    workers = Workers(int(environment["RANK"]), size, int(environment["LOCAL_RANK"]), local_size)
    _end_with_parent(environment)
    try:
        _join(workers, choose_device(gpus, workers), environment)
        yield workers
    except Exception as error:
        if not _is_lost_connection(error):
            raise
        if local_size < size:
            time.sleep(HEAD_START_SECONDS)
        raise LostPeersError(f"worker {workers.rank} of {size} ends because another one did ({error})") from error
    torch.distributed.destroy_process_group()


def _end_with_parent(environment: Mapping[str, str]) -> None:
    """Have the kernel end this worker with its torchrun, which has no chance to do so when it is killed.

    Only Linux does that. On macOS torch's function does nothing, and the workers of a killed torchrun train to the end.
    Raises LostPeersError, on both, when the torchrun that train.py ran is gone before the kernel could be asked.
    """
    torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGKILL)  # type: ignore[attr-defined]
    if os.getppid() != int(environment.get(PARENT_VARIABLE, os.getppid())):
        raise LostPeersError("this worker ends because its torchrun was killed")


def _join(workers: Workers, device: torch.device, environment: Mapping[str, str]) -> None:
    interface = environment.get("SM_NETWORK_INTERFACE_NAME", "")
    if workers.local_size == workers.size:  # on one machine
        interface = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    for library in ("GLOO", "NCCL") if interface else ():
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", interface)
    backend = "gloo"
    if device.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"  # small messages and gradients
        torch.cuda.set_device(device)
    try:
        torch.distributed.init_process_group(backend, timeout=EXCHANGE_TIMEOUT)
    except (RuntimeError, ValueError) as error:  # torch's own errors are RuntimeErrors
        if _is_lost_connection(error):
            raise
        raise DistributedError(f"worker {workers.rank} of {workers.size} cannot join the others: {error}") from error


def _is_lost_connection(error: Exception) -> bool:
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and _LOST_CONNECTION.search(str(error)) is not None
    )
