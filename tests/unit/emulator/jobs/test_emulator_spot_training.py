"""Managed spot training: instances that are taken back, with a program of its own and no other services."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import CALLER, described_job, ended_job, eventually, make_host, training_job

from emulator.__main__ import main
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
    assert job["TrainingEndTime"] - job["CreationTime"] < 20


def test_a_job_that_waits_can_be_stopped(tmp_path: Path) -> None:
    with spot_job(tmp_path, after_seconds=0, wait_seconds=60) as service:
        eventually(lambda: described_job(service)["SecondaryStatus"] == "Interrupted")
        service.call("StopTrainingJob", {"TrainingJobName": "job"}, CALLER)
        job = ended_job(service)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


def record(**members: Any) -> Payload:
    condition = {"MaxRuntimeInSeconds": 100, "MaxWaitTimeInSeconds": 200}
    transitions = [{"Status": "Starting"}]
    spot = {"EnableManagedSpotTraining": True, "StoppingCondition": condition}
    return {**spot, "SecondaryStatusTransitions": transitions, **members}


def test_waiting_is_no_running(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    limits = TrainingLimits(record(), SpotInterruption(after_seconds=60, wait_seconds=90))
    limits.instances_begin()
    clock.now += 61
    assert limits.reached() == "Interrupted"
    limits.instances_end()
    assert limits.interrupted() == 90
    clock.now += 90
    assert limits.reached() is None
    limits.instances_begin()
    clock.now += 38
    assert limits.reached() is None, "a job is interrupted once"
    clock.now += 2
    assert limits.reached() == "MaxRuntimeExceeded", "both attempts together"
    clock.now += 10
    assert limits.reached() == "MaxWaitTimeExceeded"


@pytest.mark.parametrize(
    "members",
    [
        {"EnableManagedSpotTraining": False},
        # After a restart of the local AWS.
        {"SecondaryStatusTransitions": [{"Status": "Interrupted"}, {"Status": "Restarting"}]},
    ],
)
def test_other_jobs_and_those_that_were_interrupted_keep_their_instances(
    monkeypatch: pytest.MonkeyPatch, members: Payload
) -> None:
    clock = Clock(monkeypatch)
    limits = TrainingLimits(record(**members), SpotInterruption(after_seconds=1))
    limits.instances_begin()
    clock.now += 50
    assert limits.reached() is None


@pytest.mark.parametrize("time_given", ["-1", "nan", "soon"])
def test_the_command_line_takes_times_only(capsys: pytest.CaptureFixture[str], time_given: str) -> None:
    with pytest.raises(SystemExit):
        main(["up", f"--interrupt-spot-after={time_given}"])
    assert "--interrupt-spot-after" in capsys.readouterr().err
