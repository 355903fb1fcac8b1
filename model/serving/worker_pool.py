"""Worker processes that run the model, and the queue in front of them.

All requests wait in one queue and the next free worker takes the oldest, so that no worker idles while
requests wait behind another. That is what several servers sharing one listening socket cannot do: a keep-alive
connection stays with the process that happened to accept it.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
from collections import deque
from collections.abc import Coroutine
from typing import Any

from .invocation import Answer, Timing, error_answer
from .metrics import ServingMetrics
from .request import Options
from .settings import ServingSettings
from .worker import DECODED_TOO_LONG
from .worker_process import Job, WorkerProcess, start_process

# A worker may die of what is outside of it (memory, an operator); a request is worth one more try. Not more: if
# the request itself is what kills workers, each try costs a restart.
ATTEMPTS = 2
# This many starts in a row that end without a word mean that none will succeed. The reason may pass (another program's
# hunger for memory), so there are ever longer pauses between them.
MAX_FAILED_STARTS = 10
LONGEST_PAUSE_SECONDS = 5.0
# How many images are computed in either way before one is chosen.
TRIALS = 5
# How much faster several threads have to be. Less may be chance, and they keep all vCPUs busy.
LEAST_GAIN = 1.1

_STOPPED = error_answer(503, "not_ready", "The model server is stopping.")

logger = logging.getLogger(__name__)


class ModelNotLoadedError(Exception):
    """The workers cannot load the model; the message says why."""


class LoneImages:
    """Chooses between one thread and several.

    Several are up to as many times faster, but each layer ends with waiting for the slowest of them, so that a small
    network gets slower. The first images are computed in turns by one and by several; then the way with the lower
    median is kept.
    """

    def __init__(self) -> None:
        self._seconds: dict[bool, list[float]] = {False: [], True: []}
        self._chosen: bool | None = None

    def wants_several_threads(self) -> bool:
        """Return whether the next one is computed by several threads."""
        is_next = len(self._seconds[True]) < len(self._seconds[False])
        return is_next if self._chosen is None else self._chosen

    def note(self, several_threads: bool, seconds: float) -> None:
        """Take note of how long the network took for such an image."""
        if self._chosen is None:
            self._seconds[several_threads].append(seconds)
            if min(map(len, self._seconds.values())) >= TRIALS:
                one, several = (statistics.median(self._seconds[way]) for way in (False, True))
                self._chosen = one > LEAST_GAIN * several


class WorkerPool:
    """Runs requests on worker processes, replacing those that die.

    A worker that needs longer than the time-out for an image is killed, and the image fails. One that needs more
    processor time for decoding than is allowed ends itself; then the image is refused. One of the workers may have the
    network twice: with one thread, and with those of a lone image.
    """

    def __init__(self, settings: ServingSettings, metrics: ServingMetrics) -> None:
        self._settings = settings
        self._lone_images = LoneImages()
        self._metrics = metrics
        self._too_long = error_answer(
            413,
            "image_too_large",
            f"The image takes more than {settings.decode_seconds} s of processor time to decode; send a smaller one.",
        )
        self._workers: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        self._waiting: deque[Job] = deque()
        self._failed_starts = 0
        # Whether any worker has ever run the model: then a request may wait while lost workers are replaced.
        self.has_loaded = False
        self._closing = False
        self._failure: str | None = None
        self._has_failed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_ready(self) -> bool:
        """Whether there is a worker that has run the model."""
        return any(worker.is_ready for worker in self._workers)

    async def run(self) -> None:
        """Start the workers and keep them alive, until ModelNotLoadedError or being cancelled."""
        for number in range(self._settings.workers):
            self._in_background(self._spawn(1 if number else self._settings.lone_threads))
        await self._has_failed.wait()
        raise ModelNotLoadedError(self._failure)

    async def submit(self, image: bytes, options: Options) -> Answer:
        """Have a worker classify an image, as soon as one is free."""
        if self._closing or self._failure is not None:
            return _STOPPED
        job = Job(image, options, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._dispatch()
        self._metrics.queued(len(self._waiting))
        return await job.answer

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

    def worker_has_started(self, worker: WorkerProcess) -> None:
        logger.info("A worker has loaded the model and run it", extra={"worker": worker.process.pid})
        self._failed_starts = 0
        self.has_loaded = True
        self._idle.append(worker)
        self._dispatch()

    def worker_is_free(self, worker: WorkerProcess, job: Job, timing: Timing | None) -> None:
        self._idle.append(worker)
        self._dispatch()  # before anything else: nothing else keeps the processor from working
        if timing is not None:
            if job.alone:
                self._lone_images.note(job.several_threads, timing.inference)
            queue = job.started - job.submitted
            self._metrics.image(queue=queue, decode=timing.decode, inference=timing.inference)

    def worker_is_lost(self, worker: WorkerProcess) -> None:
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        self._in_background(self._replace(worker))

    async def _replace(self, worker: WorkerProcess) -> None:
        fault, answer = "ended unexpectedly", None
        if await worker.process.wait() == -DECODED_TOO_LONG:
            fault = f"took more than {self._settings.decode_seconds} s of processor time to decode an image"
            answer = self._too_long
        elif worker.overran:
            fault = f"took more than {self._settings.timeout_seconds} s for an image"
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
            if worker.failure is not None or self._failed_starts >= MAX_FAILED_STARTS:
                self._fail(worker.failure or "The worker processes end before they have loaded the model; see the log.")
                return
        self._in_background(self._spawn(worker.lone_threads))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _spawn(self, lone_threads: int) -> None:
        if self._failed_starts > 1:
            await asyncio.sleep(min(0.1 * 2**self._failed_starts, LONGEST_PAUSE_SECONDS))
        try:
            process, connection = await start_process(self._settings.threads, lone_threads)
        except OSError as error:
            self._fail(f"No worker process can be started: {error.strerror}.")
            return
        worker = WorkerProcess(self, process, lone_threads)
        self._workers.add(worker)
        await asyncio.get_running_loop().create_connection(lambda: worker, sock=connection)

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self._has_failed.set()
        for job in self._waiting:
            job.settle(_STOPPED)
        self._waiting.clear()

    def _dispatch(self) -> None:
        while self._idle and self._waiting:
            job = self._waiting.popleft()
            if not job.answer.done():
                self._worker_for(job).start(job, self._settings.timeout_seconds)

    def _worker_for(self, job: Job) -> WorkerProcess:
        """Take an idle worker. A job that is the only one has the processors that the others do not need."""
        able = next((worker for worker in self._idle if worker.lone_threads > self._settings.threads), None)
        job.alone = able is not None and not self._waiting and len(self._idle) == len(self._workers)
        job.several_threads = job.alone and self._lone_images.wants_several_threads()
        if able is None or not job.several_threads:
            return self._idle.pop()
        self._idle.remove(able)
        return able
