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


def loopback() -> str:
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


class Worker:
    """A process that calls a function and sends back what it returns, or the error that it raises."""

    def __init__(self, function: Callable[..., Any], variables: Mapping[str, str], *arguments: Any) -> None:
        self._answers, sender = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=_call, args=(sender, function, dict(variables), arguments), daemon=True)
        self.process.start()
        sender.close()

    @property
    def answered(self) -> bool:
        return self._answers.poll()

    def result(self, seconds: float = 60.0) -> Any:
        assert self._answers.poll(seconds), "the worker does not answer"
        value, error = self._answers.recv()
        self.process.join(seconds)
        assert error is None, error
        return value


def run_workers(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function in so many workers, which find each other by a store of their own; the results by rank."""
    from torch.distributed import TCPStore

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    _store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
    variables = {
        "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    return [worker.result() for worker in [Worker(function, variables | own, *arguments) for own in ranks]]


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
