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
from collections.abc import Coroutine, Sequence
from typing import Any

from .invocation import Answer, Timing, error_answer
from .metrics import ServingMetrics
from .request import Options
from .settings import ServingSettings
from .worker import DECODED_TOO_LONG
from .worker_process import Budget, Job, WorkerProcess, start_process

# A worker may die of what is outside of it (memory, an operator); a request is worth one more try. Not more: if
# the request itself is what kills workers, each try costs a restart.
ATTEMPTS = 2
# This many starts in a row that end without a word mean that none will succeed. Once the model has been loaded, the
# reason may pass (another program's hunger for memory), so there are more, and ever longer pauses between them.
MAX_FAILED_STARTS = 3
MAX_FAILED_RESTARTS = 10
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
        if self._chosen is not None:
            return self._chosen
        return len(self._seconds[True]) < len(self._seconds[False])

    def note(self, several_threads: bool, seconds: float) -> None:
        """Take note of how long the network took for such an image."""
        if self._chosen is None:
            self._seconds[several_threads].append(seconds)
            if min(map(len, self._seconds.values())) >= TRIALS:
                one, several = (statistics.median(self._seconds[way]) for way in (False, True))
                self._chosen = one > LEAST_GAIN * several


class WorkerPool:
    """Runs requests on worker processes, replacing those that die.

    A worker that needs longer than the time-out for one image is killed, and the image fails. One that needs more than
    is left of a request's processor time for decoding ends itself; then its image is refused, and those of the request
    that still wait. One of the workers may have the network twice: with one thread, and with those of a lone image.
    """

    def __init__(self, settings: ServingSettings, metrics: ServingMetrics) -> None:
        self._settings = settings
        self._lone_images = LoneImages()
        self._metrics = metrics
        self._too_long = error_answer(
            413,
            "image_too_large",
            f"The images of this request take more than {settings.decode_seconds} s of processor time to decode; the "
            "rest of them is refused. Send smaller ones, or fewer at a time.",
        )
        self._workers: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        self._waiting: deque[Job] = deque()
        self._failed_starts = 0
        # Whether any worker has ever run the model: then a request may wait while lost workers are replaced.
        self.has_loaded = False
        self._closing = False
        self._failed: asyncio.Future[str] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_ready(self) -> bool:
        """Whether there is a worker that has run the model."""
        return any(worker.is_ready for worker in self._workers)

    async def run(self) -> None:
        """Start the workers and keep them alive, until ModelNotLoadedError or being cancelled."""
        self._failed = asyncio.get_running_loop().create_future()
        for number in range(self._settings.workers):
            self._in_background(self._spawn(1 if number else self._settings.lone_threads))
        raise ModelNotLoadedError(await self._failed)

    async def submit(self, images: Sequence[bytes], options: Options) -> Sequence[Answer]:
        """Have workers classify the images of a request, as soon as they are free."""
        if self._closing or (self._failed is not None and self._failed.done()):
            return [_STOPPED] * len(images)
        budget, loop = Budget(self._settings.decode_seconds), asyncio.get_running_loop()
        jobs = [Job(image, options, budget, loop.create_future()) for image in images]
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
            fault = f"took more than {self._settings.decode_seconds} s of processor time to decode a request's images"
            answer = self._too_long
            if worker.job is not None:
                worker.job.budget.seconds = 0
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
            allowed = MAX_FAILED_RESTARTS if self.has_loaded else MAX_FAILED_STARTS
            if worker.failure is not None or self._failed_starts >= allowed:
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
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(reason)
        for job in self._waiting:
            job.settle(_STOPPED)
        self._waiting.clear()

    def _dispatch(self) -> None:
        while self._idle and self._waiting:
            job = self._waiting.popleft()
            if job.budget.seconds <= 0:
                job.settle(self._too_long)
            elif not job.answer.done():
                self._worker_for(job).start(job, self._settings.timeout_seconds)

    def _worker_for(self, job: Job) -> WorkerProcess:
        """Take an idle worker. A job that is the only one has the processors that the others do not need."""
        able = next((worker for worker in self._idle if worker.has_several_threads), None)
        job.alone = able is not None and not self._waiting and len(self._idle) == len(self._workers)
        job.several_threads = job.alone and self._lone_images.wants_several_threads()
        if able is None or not job.several_threads:
            return self._idle.pop()
        self._idle.remove(able)
        return able
