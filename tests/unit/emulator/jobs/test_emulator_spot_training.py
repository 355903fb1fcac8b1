"""Managed spot training: instances that are taken back, with a program of its own and no other services."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulator_fixtures import CALLER, described_job, ended_job, make_host, training_job
from waiting import wait_until

from emulator.platform.awsapi import Payload
from emulator.platform.host import SpotInterruption
from emulator.sagemaker import SageMaker
from emulator.sagemaker.training.limits import TrainingLimits

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}
#: Runs until it gets SIGTERM, which it notes down; where it finds such a note, it is through at once.
ONCE_TOLD = """
import pathlib, signal, sys, time
note = pathlib.Path(sys.argv[1])
def leave(*_):
    note.write_text("told")
    sys.exit(143)
signal.signal(signal.SIGTERM, leave)
while not note.exists():
    time.sleep(0.01)
"""


@contextlib.contextmanager
def spot_job(folder: Path, waiting: int = 60, running: int = 60, **interruption: float) -> Iterator[SageMaker]:
    """Create a job of managed spot training."""
    taken = SpotInterruption(**interruption)
    service = SageMaker(make_host(folder, lambda arn, session_name: KEYS, spot_interruption=taken))
    condition = {"MaxRuntimeInSeconds": running, "MaxWaitTimeInSeconds": waiting}
    request = training_job(EnableManagedSpotTraining=True, StoppingCondition=condition)
    (folder / "program.py").write_text(ONCE_TOLD)
    request["AlgorithmSpecification"] |= {
        "ContainerEntrypoint": [sys.executable, str(folder / "program.py")],
        "ContainerArguments": [str(folder / "note")],
    }
    try:
        service.call("CreateTrainingJob", request, CALLER)
        yield service
    finally:
        service.stop()


def course(job: Payload) -> list[str]:
    return [transition["Status"] for transition in job["SecondaryStatusTransitions"]]


def test_a_job_whose_instances_are_taken_back_waits_and_goes_on(tmp_path: Path) -> None:
    with spot_job(tmp_path, after_seconds=2, wait_seconds=2) as service:
        job = ended_job(service)
    assert job["TrainingJobStatus"] == "Completed"
    # As AWS documents it for one interruption ("Managed Spot Training Lifecycle").
    assert course(job) == [
        "Starting", "Downloading", "Training", "Interrupted", "Starting", "Downloading", "Training", "Uploading",
        "Completed",
    ]  # fmt: skip
    assert (tmp_path / "note").read_text() == "told", "the program could save what it had"
    assert 1 <= job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"] - 1, "nobody pays for waiting"
    interrupted = job["SecondaryStatusTransitions"][3]
    assert interrupted["EndTime"] - interrupted["StartTime"] >= 2


def test_a_job_waits_for_so_long_and_no_longer(tmp_path: Path) -> None:
    with spot_job(tmp_path, waiting=2, running=1, after_seconds=0, wait_seconds=60) as service:
        job = ended_job(service)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
    assert course(job)[3:] == ["Interrupted", "Stopping", "MaxWaitTimeExceeded"]


def test_a_job_that_waits_can_be_stopped(tmp_path: Path) -> None:
    with spot_job(tmp_path, after_seconds=0, wait_seconds=60) as service:
        wait_until(lambda: described_job(service)["SecondaryStatus"] == "Interrupted")
        service.call("StopTrainingJob", {"TrainingJobName": "job"}, CALLER)
        job = ended_job(service)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")


@pytest.mark.parametrize(
    ("spot", "statuses", "reached"),
    [
        # Both attempts together, without the 90 seconds of waiting, and interrupted once.
        (True, ["Starting"], ["Interrupted", None, "MaxRuntimeExceeded", "MaxWaitTimeExceeded"]),
        (False, ["Starting"], [None, None, "MaxRuntimeExceeded", "MaxWaitTimeExceeded"]),
        # After a restart of the local AWS.
        (True, ["Interrupted", "Restarting"], [None, None, "MaxRuntimeExceeded", "MaxWaitTimeExceeded"]),
    ],
)
def test_waiting_is_no_running(
    monkeypatch: pytest.MonkeyPatch, spot: bool, statuses: list[str], reached: list[str | None]
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    job = {
        "EnableManagedSpotTraining": spot,
        "StoppingCondition": {"MaxRuntimeInSeconds": 100, "MaxWaitTimeInSeconds": 200},
        "SecondaryStatusTransitions": [{"Status": status} for status in statuses],
    }
    limits = TrainingLimits(job, SpotInterruption(after_seconds=60, wait_seconds=90))
    found = []
    for running, waiting in ((61, 90), (38, 0), (2, 0), (10, 0)):
        limits.instances_begin()
        now += running
        found.append(limits.reached())
        limits.instances_end()
        if found[-1] == "Interrupted":
            assert limits.interrupted() == waiting
        now += waiting
    assert found == reached
