"""SIGKILL at random moments of a training by two workers: started again, it ends as if nothing had happened.

The tests stand in for torchrun, so the program joins a group that somebody else has started.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from distributed_fixtures import Meeting, Worker, start_workers
from training_fixtures import write_data_set

from model.train import main

KILLS = 5
EPOCHS, STEPS = 12, 3
ARGUMENTS = [
    "--architecture", "resnet9", "--input-size", "16", "--epochs", str(EPOCHS), "--batch-size", "12",
    "--num-cpus", "2", "--num-gpus", "0", "--precision", "fp32",
]  # fmt: skip


def start(data: Path, folder: Path) -> tuple[Meeting, list[Worker]]:
    places = ["--data-dir", data, "--model-dir", folder / "model", "--output-data-dir", folder / "output"]
    argv = [*ARGUMENTS, "--checkpoint-dir", folder / "checkpoints", "--checkpoint-minutes", "0", *places]
    return start_workers(2, main, [str(text) for text in argv])


def steps_made(folder: Path) -> int:
    """How far the newest checkpoint is."""
    names = [path.stem.split("-") for path in (folder / "checkpoints").glob("epoch-*")]
    return max((STEPS * (int(epoch) - 1) + int(step) for _, epoch, _, step in names), default=0)


def metrics(folder: Path) -> dict:
    found = json.loads((folder / "output" / "metrics.json").read_text())
    for epoch in found["epochs"]:
        del epoch["images_per_second"]
    return found


@pytest.mark.slow
def test_killed_at_five_random_moments_a_training_of_two_workers_ends_with_the_same_result(tmp_path):
    data = write_data_set(tmp_path / "data")
    _meeting, workers = start(data, tmp_path / "undisturbed")
    for worker in workers:
        assert worker.result() == 0
    moments = random.Random(time.time_ns())
    killed = tmp_path / "killed"
    targets = sorted(moments.sample(range(1, EPOCHS * STEPS - 2 * KILLS), KILLS))
    for number, target in enumerate(targets):
        _meeting, workers = start(data, killed)
        deadline = time.monotonic() + 60
        # Whatever they do at that moment: a step, an exchange, the writing of a checkpoint, a validation.
        while steps_made(killed) < target + 2 * number:
            assert time.monotonic() < deadline
        for worker in moments.sample(workers, 2):
            os.kill(worker.process.pid, signal.SIGKILL)
        for worker in workers:
            worker.process.join(60)
            assert worker.process.exitcode == -signal.SIGKILL
    _meeting, workers = start(data, killed)
    for worker in workers:
        assert worker.result() == 0
    expected, found = metrics(tmp_path / "undisturbed"), metrics(killed)
    assert len(found["epochs"]) == EPOCHS
    for one, two in zip(expected["epochs"], found["epochs"], strict=True):
        assert two == pytest.approx(one, abs=1e-5)
    assert found["best_epoch"] == expected["best_epoch"]
    assert found["test"]["loss"] == pytest.approx(expected["test"]["loss"], abs=1e-5)
