"""Which pictures have more than one thread: those that come alone, where it makes them faster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from model.serving.invocation import Answer, Timing
from model.serving.lone_images import TRIALS, LoneImages
from model.serving.metrics import ServingMetrics
from model.serving.request import Options
from model.serving.worker_pool import WorkerPool
from model.serving.worker_process import Job

ONE, SEVERAL = False, True


def ways(lone: LoneImages, count: int, one: float, several: float) -> list[bool]:
    """Compute so many pictures, one after the other, that take so many seconds; return how each is computed."""
    chosen = []
    for _ in range(count):
        chosen.append(lone.wants_several_threads())
        lone.note(chosen[-1], several if chosen[-1] else one)
    return chosen


@pytest.mark.parametrize(
    ("several", "best"),
    [(0.010, SEVERAL), (0.019, ONE), (0.030, ONE)],
    ids=["faster", "hardly faster", "slower"],
)
def test_both_ways_are_tried_in_turns_and_the_faster_one_is_kept(several: float, best: bool) -> None:
    lone = LoneImages()
    assert ways(lone, 2 * TRIALS, 0.020, several) == [ONE, SEVERAL] * TRIALS
    assert ways(lone, 5, 0.020, several) == [best] * 5
    assert ways(lone, 5, 9.0, 9.0) == [best] * 5, "what comes later changes nothing"
    other = LoneImages()
    ways(other, 2, 0.020, 5.0)  # a single slow one decides nothing
    ways(other, 2 * TRIALS - 2, 0.020, several)
    assert other.wants_several_threads() is best


class StubWorker:
    """Takes jobs, and finishes one when it is told to."""

    def __init__(self, pool: WorkerPool, *, has_several_threads: bool) -> None:
        self.has_several_threads = has_several_threads
        self.job: Job | None = None
        self._pool = pool

    def start(self, job: Job, seconds: float) -> None:
        self.job = job

    def finish(self) -> None:
        job, self.job = self.job, None
        assert job is not None
        job.settle(Answer(200, b""))
        self._pool.worker_is_free(self, job, Timing(0.0, 0.010 if job.several_threads else 0.020))


class Pool:
    """A pool of two workers, the first of which can take several threads."""

    def __init__(self) -> None:
        self.pool = WorkerPool(2, 1.0, 5, lone_threads=2, metrics=ServingMetrics())
        self.able, self.other = (StubWorker(self.pool, has_several_threads=able) for able in (True, False))
        self.pool._workers = {self.able, self.other}
        self.pool._idle = [self.able, self.other]
        self._tasks: set[asyncio.Task[Sequence[Answer]]] = set()

    async def ask(self) -> StubWorker | None:
        """Ask for a picture; return the worker that got it, None while it waits."""
        before = {worker: worker.job for worker in (self.able, self.other)}
        self._tasks.add(asyncio.create_task(self.pool.submit([b""], Options())))
        await asyncio.sleep(0)
        return next((worker for worker, job in before.items() if worker.job is not job), None)

    async def ask_one_by_one(self, count: int) -> list[bool]:
        """Return with how many threads each was computed."""
        threads = []
        for _ in range(count):
            worker = await self.ask()
            assert worker is not None and worker.job is not None
            threads.append(worker.job.several_threads)
            worker.finish()
        return threads


def test_a_lone_picture_goes_to_the_worker_that_has_several_threads() -> None:
    async def scenario() -> None:
        pool = Pool()
        assert await pool.ask_one_by_one(2 * TRIALS) == [ONE, SEVERAL] * TRIALS
        assert await pool.ask_one_by_one(3) == [SEVERAL] * 3
        assert await pool.ask() is pool.able

    asyncio.run(scenario())


def test_pictures_that_come_together_have_a_thread_each() -> None:
    async def scenario() -> None:
        pool = Pool()
        await pool.ask_one_by_one(2 * TRIALS)
        first, second, third = await pool.ask(), await pool.ask(), await pool.ask()
        assert first is pool.able and first.job is not None and first.job.several_threads
        assert second is pool.other and second.job is not None and not second.job.several_threads
        assert third is None
        pool.able.finish()  # the third one is computed now, and the second one still is
        assert pool.able.job is not None and not pool.able.job.several_threads

    asyncio.run(scenario())


def test_while_a_worker_is_being_loaded_no_picture_is_alone() -> None:
    async def scenario() -> None:
        pool = Pool()
        pool.pool._idle.remove(pool.other)
        assert await pool.ask_one_by_one(2 * TRIALS + 1) == [ONE] * (2 * TRIALS + 1)

    asyncio.run(scenario())
