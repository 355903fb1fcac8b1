"""Environments on demand: few start at a time, a waiting execution takes the first free one, and no wait is endless."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from emulator.ministack.functions import executions
from emulator.ministack.functions.executions import Executions


class Worker:
    in_use = True


class Pool:
    """The workers of one function, as MiniStack hands them out."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []

    def acquire(self, max_concurrency: int = 1000) -> tuple[Any, str]:
        for worker in self.workers:
            if not worker.in_use:
                worker.in_use = True
                return worker, "reused"
        if len(self.workers) >= max_concurrency:
            return None, "func_cap"
        self.workers.append(Worker())
        return self.workers[-1], "spawn"

    def release(self, worker: Worker) -> None:
        worker.in_use = False


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Executions:
    monkeypatch.setattr(executions, "_STARTS", 2)
    return Executions(lambda *_: None, None, lambda: 1000)  # type: ignore[arg-type]


def test_few_environments_start_at_a_time_and_every_execution_gets_one(limited: Executions) -> None:
    pool, lock, starting, most = Pool(), threading.Lock(), 0, 0

    def spawn(worker: Worker) -> None:
        nonlocal starting, most
        with lock:
            starting += 1
            most = max(most, starting)
        threading.Event().wait(0.002)
        with lock:
            starting -= 1

    def execute(_: int) -> None:
        worker, how = limited._environment(pool.acquire)
        if how == "spawn":
            limited._timed(spawn)(worker)
        limited._free(pool.release, worker)

    with ThreadPoolExecutor(50) as threads:
        list(threads.map(execute, range(200)))
    assert most <= 2
    assert not any(worker.in_use for worker in pool.workers)


def test_an_execution_takes_what_another_leaves_while_others_start(limited: Executions) -> None:
    pool = Pool()
    first, second = (limited._environment(pool.acquire)[0] for _ in range(2))
    limited._has_started(first)
    limited._environment(pool.acquire)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(limited._environment, pool.acquire)
        limited._free(pool.release, first)
        assert waiting.result() == (first, "reused")
    assert second.in_use


def test_starts_that_wait_for_an_execution_do_not_keep_it(limited: Executions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executions, "_START_SECONDS", 0.01)
    pool = Pool()
    given = [limited._environment(pool.acquire) for _ in range(5)]
    assert [how for _, how in given] == ["spawn"] * 5
