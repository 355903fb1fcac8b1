"""Worker processes that run the model, and the queue in front of them.

All requests wait in one queue and the next free worker takes the oldest, so that no worker idles while
requests wait behind another. That is what several servers sharing one listening socket cannot do: a keep-alive
connection stays with the process that happened to accept it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ..core.memory import LARGE_BLOCKS_RETURN
from .invocation import Answer, Timing, error_answer
from .lone_images import LoneImages
from .metrics import ServingMetrics
from .request import Options
from .worker import ANSWER_HEADER, DECODED_TOO_LONG, FAILED, READY, REQUEST_HEADER, SEVERAL_THREADS

# A worker may die of what is outside of it (memory, an operator); a request is worth one more try. Not more: if
# the request itself is what kills workers, each try costs a restart.
ATTEMPTS = 2
# This many starts in a row that end without a word mean that none will succeed. Once the model has been loaded, the
# reason may pass (another program's hunger for memory), so there are more, and ever longer pauses between them.
MAX_FAILED_STARTS = 3
MAX_FAILED_RESTARTS = 10
LONGEST_PAUSE_SECONDS = 5.0
START_SECONDS = 120

_STOPPED = error_answer(503, "not_ready", "The model server is stopping.")

logger = logging.getLogger(__name__)


class ModelNotLoadedError(Exception):
    """The workers cannot load the model; the message says why."""


@dataclass(slots=True)
class _Budget:
    """The processor time that is left to decode the images of one request."""

    seconds: float


@dataclass(slots=True)
class _Job:
    """An image on its way through the pool."""

    image: bytes
    options: Options
    budget: _Budget
    answer: asyncio.Future[Answer]
    attempts: int = 0
    alone: bool = False
    several_threads: bool = False
    submitted: float = field(default_factory=time.perf_counter)
    started: float = 0.0

    def settle(self, answer: Answer) -> None:
        if not self.answer.done():  # it is, when whoever waited has given up
            self.answer.set_result(answer)


class _Worker(asyncio.Protocol):
    """The parent's side of one worker process."""

    def __init__(self, pool: WorkerPool, process: asyncio.subprocess.Process, lone_threads: int) -> None:
        self.process = process
        self.lone_threads = lone_threads
        self.job: _Job | None = None
        self.is_ready = False
        self.has_several_threads = False
        self.failure: str | None = None
        self.overran = False
        self._pool = pool
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def start(self, job: _Job, seconds: float) -> None:
        assert self._transport is not None
        self.job = job
        job.attempts += 1
        job.started = time.perf_counter()
        self._arm(seconds)
        options = job.options
        asked = (options.top_k, options.scores, options.as_numbers, job.several_threads)
        header = REQUEST_HEADER.pack(len(job.image), job.budget.seconds, *asked)
        self._transport.writelines((header, job.image))

    def close(self) -> None:
        """Let the worker finish what it is at, and end."""
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
        status, decode, inference, spent, length = ANSWER_HEADER.unpack_from(self._received)
        if len(self._received) < ANSWER_HEADER.size + length:
            return
        body = bytes(self._received[ANSWER_HEADER.size :])
        self._received.clear()
        self._disarm()
        if self.job is not None:
            job, self.job = self.job, None
            job.budget.seconds -= spent
            timing = Timing(decode, inference) if status == 200 else None
            job.settle(Answer(status, body, timing=timing))
            self._pool.worker_is_free(self, job, timing)
        elif status == READY:
            self.is_ready = True
            self.has_several_threads = body == SEVERAL_THREADS
            self._pool.worker_has_started(self)
        elif status == FAILED:
            self.failure = body.decode()

    def connection_lost(self, error: Exception | None) -> None:
        self._disarm()
        self.kill()  # that is, should it have closed the connection and live
        self._pool.worker_is_lost(self)

    def _arm(self, seconds: float) -> None:
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._overrun)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _overrun(self) -> None:
        self.overran = True
        self.kill()


class WorkerPool:
    """Runs requests on worker processes, replacing those that die.

    Parameters
    ----------
    size
        How many worker processes.
    timeout_seconds
        A worker that needs longer for one image is killed and replaced, and the image fails.
    decode_seconds
        The processor time to decode the images of one request. A worker that needs more than is left of it ends
        itself; then its image is refused, and those of the request that still wait.
    threads
        CPU threads of each worker.
    lone_threads
        CPU threads for an image that comes while no other one is computed, if that is faster. One of the workers then
        has the network twice.
    metrics
        Are told what happens.
    """

    def __init__(
        self,
        size: int,
        timeout_seconds: float,
        decode_seconds: int,
        *,
        threads: int = 1,
        lone_threads: int = 1,
        metrics: ServingMetrics,
    ) -> None:
        self._size = size
        self._threads = threads
        self._lone_threads = lone_threads
        self._lone_images = LoneImages()
        self._metrics = metrics
        self._timeout_seconds = timeout_seconds
        self._decode_seconds = decode_seconds
        self._too_long = error_answer(
            413,
            "image_too_large",
            f"The images of this request take more than {decode_seconds} s of processor time to decode; the rest of "
            "them is refused. Send smaller ones, or fewer at a time.",
        )
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._waiting: deque[_Job] = deque()
        self._failed_starts = 0
        self._has_loaded = False
        self._closing = False
        self._failed: asyncio.Future[str] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_ready(self) -> bool:
        """Whether there is a worker that has run the model."""
        return any(worker.is_ready for worker in self._workers)

    @property
    def has_loaded(self) -> bool:
        """Whether any worker has ever run the model: then a request may wait while lost workers are replaced."""
        return self._has_loaded

    async def run(self) -> None:
        """Start the workers and keep them alive; returns only by being cancelled.

        Raises
        ------
        ModelNotLoadedError
            If the first workers cannot load the model, or replacements repeatedly cannot.
        """
        self._failed = asyncio.get_running_loop().create_future()
        for number in range(self._size):
            self._start_worker(1 if number else self._lone_threads)
        raise ModelNotLoadedError(await self._failed)

    async def submit(self, images: Sequence[bytes], options: Options) -> Sequence[Answer]:
        """Have workers classify the images of a request, as soon as they are free."""
        if self._closing or (self._failed is not None and self._failed.done()):
            return [_STOPPED] * len(images)
        budget, loop = _Budget(self._decode_seconds), asyncio.get_running_loop()
        jobs = [_Job(image, options, budget, loop.create_future()) for image in images]
        self._waiting.extend(jobs)
        self._dispatch()
        self._metrics.queued(len(self._waiting))
        return await asyncio.gather(*(job.answer for job in jobs))

    async def close(self) -> None:
        """End the workers, and wait until they are gone."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        workers = list(self._workers)
        for worker in workers:
            worker.close()
            if worker.job is not None or not worker.is_ready:  # nobody waits for it any more
                worker.kill()
        await asyncio.gather(*(worker.process.wait() for worker in workers))

    def worker_has_started(self, worker: _Worker) -> None:
        logger.info("A worker has loaded the model and run it", extra={"worker": worker.process.pid})
        self._failed_starts = 0
        self._has_loaded = True
        self._take_next(worker)

    def worker_is_free(self, worker: _Worker, job: _Job, timing: Timing | None) -> None:
        self._take_next(worker)  # before anything else: nothing else keeps the processor from working
        if timing is not None:
            if job.alone:
                self._lone_images.note(job.several_threads, timing.inference)
            queue = job.started - job.submitted
            self._metrics.image(queue=queue, decode=timing.decode, inference=timing.inference)

    def worker_is_lost(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        self._in_background(self._replace(worker))

    async def _replace(self, worker: _Worker) -> None:
        fault, answer = "ended unexpectedly", None
        if await worker.process.wait() == -DECODED_TOO_LONG:
            fault = f"took more than {self._decode_seconds} s of processor time to decode a request's images"
            answer = self._too_long
            if worker.job is not None:
                worker.job.budget.seconds = 0
        elif worker.overran:
            fault = f"took more than {self._timeout_seconds} s for an image"
            answer = error_answer(500, "model_failed", f"The worker {fault}.")
        if worker.job is not None and answer is None and worker.job.attempts < ATTEMPTS:
            self._waiting.appendleft(worker.job)
            self._dispatch()
        elif worker.job is not None:
            crashed = "The model crashed on this image; the endpoint's log says more."
            worker.job.settle(answer or error_answer(500, "model_failed", crashed))
        if self._closing:
            return
        self._metrics.worker_restarted()
        if worker.is_ready:
            logger.error("A worker process %s; it is replaced", fault, extra={"worker": worker.process.pid})
        else:
            self._failed_starts += 1
            allowed = MAX_FAILED_RESTARTS if self._has_loaded else MAX_FAILED_STARTS
            if worker.failure is not None or self._failed_starts >= allowed:
                self._fail(worker.failure or "The worker processes end before they have loaded the model; see the log.")
                return
        self._start_worker(worker.lone_threads)

    def _start_worker(self, lone_threads: int) -> None:
        self._in_background(self._spawn(lone_threads))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _spawn(self, lone_threads: int) -> None:
        if self._failed_starts > 1:
            await asyncio.sleep(min(0.1 * 2**self._failed_starts, LONGEST_PAUSE_SECONDS))
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", f"{__package__}.worker", str(theirs.fileno()), str(lone_threads)),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    env=_worker_environment(self._threads),
                )
            except BaseException as error:
                ours.close()
                if not isinstance(error, OSError):
                    raise
                self._fail(f"No worker process can be started: {error.strerror}.")
                return
        worker = _Worker(self, process, lone_threads)
        self._workers.add(worker)
        await asyncio.get_running_loop().create_connection(lambda: worker, sock=ours)

    def _fail(self, reason: str) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(reason)
        for job in self._waiting:
            job.settle(_STOPPED)
        self._waiting.clear()

    def _take_next(self, worker: _Worker) -> None:
        self._idle.append(worker)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._idle and self._waiting:
            job = self._waiting.popleft()
            if job.budget.seconds <= 0:
                job.settle(self._too_long)
            elif not job.answer.done():
                self._worker_for(job).start(job, self._timeout_seconds)

    def _worker_for(self, job: _Job) -> _Worker:
        """Take an idle worker. A job that is the only one has the processors that the others do not need."""
        able = next((worker for worker in self._idle if worker.has_several_threads), None)
        job.alone = able is not None and not self._waiting and len(self._idle) == len(self._workers)
        job.several_threads = job.alone and self._lone_images.wants_several_threads()
        if able is None or not job.several_threads:
            return self._idle.pop()
        self._idle.remove(able)
        return able


def _worker_environment(threads: int) -> dict[str, str]:
    """Return this process's environment with what a worker needs besides.

    The folder that this package was imported from comes first on the path, so that workers run the same program. And
    numpy's and PyTorch's libraries, which read it when they are loaded, must not start a thread per core by themselves.
    """
    package_parent = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join(filter(None, (package_parent, inherited)))
    return {**LARGE_BLOCKS_RETURN, **os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
