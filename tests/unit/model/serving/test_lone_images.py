"""Which images have more than one thread: those that come alone, where it makes them faster."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from model.serving.invocation import Answer, Timing
from model.serving.metrics import ServingMetrics
from model.serving.request import Options
from model.serving.settings import ServingSettings
from model.serving.worker_pool import TRIALS, LoneImages, WorkerPool

ONE, SEVERAL = False, True


def ways(lone: LoneImages, count: int, one: float, several: float) -> list[bool]:
    """Compute so many images, one after the other, that take so many seconds; return how each is computed."""
    chosen = []
    for _ in range(count):
        chosen.append(lone.wants_several_threads())
        lone.note(chosen[-1], several if chosen[-1] else one)
    return chosen


@pytest.mark.parametrize(
    ("several", "best"), [(0.010, SEVERAL), (0.019, ONE), (0.030, ONE)], ids=["faster", "hardly faster", "slower"]
)
def test_both_ways_are_tried_in_turns_and_the_faster_one_is_kept(several: float, best: bool) -> None:
    lone = LoneImages()
    assert ways(lone, 2, 0.020, 5.0) == [ONE, SEVERAL]  # a single slow one decides nothing
    assert ways(lone, 2 * TRIALS - 2, 0.020, several) == [ONE, SEVERAL] * (TRIALS - 1)
    assert ways(lone, 5, 9.0, 9.0) == [best] * 5, "what comes later changes nothing"


class StubWorker:
    """Takes jobs, and finishes one when it is told to."""

    job: Any = None

    def __init__(self, pool: WorkerPool, *, has_several_threads: bool) -> None:
        self.has_several_threads = has_several_threads
        self._pool: Any = pool

    def start(self, job: Any, seconds: float) -> None:
        self.job = job

    def finish(self) -> bool:
        """Return whether it took several threads."""
        job, self.job = self.job, None
        job.settle(Answer(200, b""))
        self._pool.worker_is_free(self, job, Timing(0.0, 0.010 if job.several_threads else 0.020))
        return job.several_threads


def test_an_image_has_several_threads_only_while_it_is_the_only_one() -> None:
    async def scenario() -> None:
        pool: Any = WorkerPool(ServingSettings.from_environment({}), ServingMetrics())
        able, other = StubWorker(pool, has_several_threads=True), StubWorker(pool, has_several_threads=False)
        pool._workers, pool._idle = {able, other}, [able]
        asked = set()

        async def ask() -> None:
            asked.add(asyncio.create_task(pool.submit([b""], Options())))
            await asyncio.sleep(0)

        await ask()
        assert able.finish() is ONE  # the other worker is still being loaded, so this one is not alone
        pool._idle.append(other)
        for way in [ONE, SEVERAL] * TRIALS + [SEVERAL]:
            await ask()
            assert (able if able.job else other).finish() is way
        for _ in range(3):
            await ask()
        assert (able.job.several_threads, other.job.several_threads) == (SEVERAL, ONE)
        able.finish()  # the third one is computed now, and the second one still is
        assert able.job.several_threads is ONE

    asyncio.run(scenario())
