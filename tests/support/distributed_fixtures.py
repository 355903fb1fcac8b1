"""Groups of workers for the tests, in processes that start in milliseconds because a server has imported torch."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
# The last one is imported by the first optimiser, and takes as long as torch.
FORKS.set_forkserver_preload(["model.train", "torch._dynamo"])


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """Return what torchrun tells a worker; a `Meeting` keeps the store at that port."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip


class Meeting:
    """The store that torchrun keeps for its workers."""

    def __init__(self) -> None:
        from torch.distributed import TCPStore

        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        self._store = TCPStore(
            "127.0.0.1", self.port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
        )


def loopback() -> str:
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(function: Callable[..., Any], variables: Mapping[str, str], *arguments: Any) -> Worker:
    """Call a function in a process of its own."""
    return Worker(function, variables, arguments)


class Worker:
    """A process that calls a function and sends back what it returns, or the error that it raises."""

    def __init__(self, function: Callable[..., Any], variables: Mapping[str, str], arguments: tuple[Any, ...]) -> None:
        self._answers, sender = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=_call, args=(sender, function, dict(variables), arguments), daemon=True)
        self.process.start()
        sender.close()

    @property
    def answered(self) -> bool:
        """Whether `result` would not wait."""
        return self._answers.poll()

    def result(self, seconds: float = 60.0) -> Any:
        """Wait for what the function returned."""
        assert self._answers.poll(seconds), "the worker does not answer"
        value, error = self._answers.recv()
        self.process.join(seconds)
        assert error is None, error
        return value


def start_workers(size: int, function: Callable[..., Any], *arguments: Any) -> tuple[Meeting, list[Worker]]:
    """Call a function in so many workers, which find each other by their environment."""
    meeting = Meeting()
    return meeting, [start(function, environment(rank, size, meeting.port), *arguments) for rank in range(size)]


def run_workers(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function in so many workers; the results by rank."""
    _meeting, workers = start_workers(size, function, *arguments)
    return [worker.result() for worker in workers]


def _call(
    sender: Connection, function: Callable[..., Any], variables: dict[str, str], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(variables)
    import torch

    torch.set_num_threads(1)
    try:
        sender.send((function(*arguments), None))
    except BaseException:
        sender.send((None, traceback.format_exc()))
        raise
