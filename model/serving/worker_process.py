"""The server's side of one worker process: starting it, handing it an image, and reading its answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from ..core.machine import LARGE_BLOCKS_RETURN
from .invocation import Answer, Timing
from .request import Options
from .worker import ANSWER_HEADER, FAILED, READY, REQUEST_HEADER

START_SECONDS = 120


@dataclass(slots=True)
class Job:
    """An image on its way through the pool."""

    image: bytes
    options: Options
    answer: asyncio.Future[Answer]
    attempts: int = 0
    alone: bool = False
    several_threads: bool = False
    submitted: float = field(default_factory=time.perf_counter)
    started: float = 0.0

    def settle(self, answer: Answer) -> None:
        if not self.answer.done():  # it is, when the caller has given up
            self.answer.set_result(answer)


class _Owner(Protocol):
    def worker_has_started(self, worker: WorkerProcess) -> None: ...
    def worker_is_free(self, worker: WorkerProcess, job: Job, timing: Timing | None) -> None: ...
    def worker_is_lost(self, worker: WorkerProcess) -> None: ...


class WorkerProcess(asyncio.Protocol):
    """The parent's side of one worker process."""

    def __init__(self, owner: _Owner, process: asyncio.subprocess.Process, lone_threads: int) -> None:
        self.process = process
        self.lone_threads = lone_threads
        self.job: Job | None = None
        self.is_ready = False
        self.failure: str | None = None
        self.overran = False
        self._owner = owner
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def start(self, job: Job, seconds: float) -> None:
        assert self._transport is not None
        self.job = job
        job.attempts += 1
        job.started = time.perf_counter()
        self._arm(seconds)
        options = job.options
        header = REQUEST_HEADER.pack(len(job.image), options.top_k, options.scores, job.several_threads)
        self._transport.writelines((header, job.image))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def kill(self) -> None:
        # `process.kill()` would first look whether the process has ended, and so take its exit status from asyncio.
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._arm(START_SECONDS)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < ANSWER_HEADER.size:
            return
        status, decode, inference, length = ANSWER_HEADER.unpack_from(self._received)
        if len(self._received) < ANSWER_HEADER.size + length:
            return
        body = bytes(self._received[ANSWER_HEADER.size :])
        self._received.clear()
        self._disarm()
        if self.job is not None:
            job, self.job = self.job, None
            timing = Timing(decode, inference) if status == 200 else None
            job.settle(Answer(status, body, timing))
            self._owner.worker_is_free(self, job, timing)
        elif status == READY:
            self.is_ready = True
            self._owner.worker_has_started(self)
        elif status == FAILED:
            self.failure = body.decode()

    def connection_lost(self, error: Exception | None) -> None:
        self._disarm()
        self.kill()  # that is, should it have closed the connection and live
        self._owner.worker_is_lost(self)

    def _arm(self, seconds: float) -> None:
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._overrun)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _overrun(self) -> None:
        self.overran = True
        self.kill()


async def start_process(threads: int, lone_threads: int) -> tuple[asyncio.subprocess.Process, socket.socket]:
    """Start the program `worker`; return its process and this side of the connection."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", f"{__package__}.worker", str(theirs.fileno()), str(lone_threads)),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                env=_environment(threads),
            )
        except BaseException:
            ours.close()
            raise
    return process, ours


def _environment(threads: int) -> dict[str, str]:
    """Return this process's environment with what a worker needs besides.

    The folder that this package was imported from comes first on the path, so that workers run the same program. And
    numpy's and PyTorch's libraries, which read it when they are loaded, must not start a thread per core by themselves.
    """
    package_parent = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join(filter(None, (package_parent, inherited)))
    return {**LARGE_BLOCKS_RETURN, **os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
