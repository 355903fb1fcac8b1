"""The course of a training job, with a program of its own and a platform whose other services do not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import CALLER, full_disk, make_host, training_job
from waiting import wait_until

from emulator.platform.awsapi import Payload
from emulator.platform.conditions import SpotInterruption
from emulator.platform.store import Record
from emulator.sagemaker import SageMaker
from emulator.sagemaker.runs import Run
from emulator.sagemaker.training.job import TrainingLimits
from emulator.sagemaker.training.operations import TrainingJobs

Start = Callable[..., "Job"]


class Job:
    """A training job that runs a program as its container's first process."""

    def __init__(self, service: SageMaker, program: Path, regex: str, **members: Any) -> None:
        self.service = service
        request = training_job(**members)
        request["AlgorithmSpecification"] |= {
            "ContainerEntrypoint": ["python", str(program)],
            "MetricDefinitions": [{"Name": "loss", "Regex": regex}],
        }
        service.call("CreateTrainingJob", request, CALLER)

    def described(self) -> Payload:
        return self.service.call("DescribeTrainingJob", {"TrainingJobName": "job"}, CALLER)

    def ended(self) -> Payload:
        wait_until(lambda: self.described()["TrainingJobStatus"] not in ("InProgress", "Stopping"))
        return self.described()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a training job, on a platform that takes spot capacity back where it is told to."""
    services: list[SageMaker] = []

    def make(program: str, regex: str = "loss=([0-9.]+)", spot: SpotInterruption | None = None, **members: Any) -> Job:
        services.append(SageMaker(make_host(tmp_path, spot_interruption=spot)))
        (tmp_path / "program.py").write_text(program)
        return Job(services[0], tmp_path / "program.py", regex, **members)

    yield make
    for service in services:
        service.stop()


@pytest.mark.parametrize("lines", [4_000, 20_000])
def test_lines_that_a_metric_matches_without_a_value_are_no_values(start: Start, lines: int) -> None:
    # What a pipe holds is read after the program's end; one that prints more ends only if every line is read.
    program = f"print('loss=x\\n' * {lines} + 'loss=nan\\n' * {lines} + 'loss=0.5')"
    found = start(program, regex=r"loss=([0-9.]+)?").ended()
    assert found["TrainingJobStatus"] == "Completed"
    assert [metric["Value"] for metric in found["FinalMetricDataList"]] == [0.5]


def test_a_metric_that_takes_too_long_on_a_line_is_left_out_from_there_on(start: Start) -> None:
    found = start("print('a' * 99 + '!\\n0.5')", regex=r"(?:a|aa)+$|([0-9.]+)").ended()
    assert (found["TrainingJobStatus"], found.get("FinalMetricDataList", [])) == ("Completed", [])


def test_the_next_server_takes_up_a_job_that_came_while_one_ended(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(service: SageMaker, *arguments: Any) -> Any:
        service.interrupt()
        return call(service, *arguments)

    call = SageMaker.call
    monkeypatch.setattr(SageMaker, "call", interrupted)
    job = start("print('trained')")
    job.service.stop()
    monkeypatch.setattr(SageMaker, "call", call)
    job.service = SageMaker(make_host(tmp_path))
    assert job.described()["TrainingJobStatus"] == "InProgress"
    job.service.start()
    assert job.ended()["TrainingJobStatus"] == "Completed"
    job.service.stop()


def test_a_job_that_is_stopped_the_moment_it_is_on_record_does_stop(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_run = TrainingJobs._new_run

    def stopped_first(jobs: TrainingJobs, record: Record) -> Run:
        jobs.request_stop(record["TrainingJobArn"])
        return new_run(jobs, record)

    monkeypatch.setattr(TrainingJobs, "_new_run", stopped_first)
    found = start("import time; time.sleep(600)").ended()
    assert (found["TrainingJobStatus"], found["SecondaryStatus"]) == ("Stopped", "Stopped")


def test_a_job_that_ends_while_the_disk_is_full_has_ended_well_once_there_is_space(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = """
import pathlib, sys, time
print('loss=0.5', flush=True)
while not pathlib.Path(sys.argv[0]).with_name("go").exists(): time.sleep(0.01)
print('loss=0.25')
"""
    job = start(program)
    wait_until(lambda: "FinalMetricDataList" in job.described())
    with full_disk():
        (tmp_path / "go").touch()
        wait_until(lambda: "Trying again until there is some" in caplog.text)
        assert job.described()["TrainingJobStatus"] == "InProgress"
    found = job.ended()
    assert found["TrainingJobStatus"] == "Completed"
    assert job.service.training_jobs.metric_values(found["TrainingJobArn"], "loss") == (0.5, 0.25)


#: Runs until it gets SIGTERM, which it notes down; where it finds such a note, it is through at once.
ONCE_TOLD = """
import pathlib, signal, sys, time
note = pathlib.Path(sys.argv[0]).with_name("note")
def leave(*_):
    note.write_text("told")
    sys.exit(143)
signal.signal(signal.SIGTERM, leave)
while not note.exists():
    time.sleep(0.01)
"""


def spot(waiting: int = 60, running: int = 60, **interruption: float) -> dict[str, Any]:
    condition = {"MaxRuntimeInSeconds": running, "MaxWaitTimeInSeconds": waiting}
    taken = SpotInterruption(**interruption)
    return {"spot": taken, "EnableManagedSpotTraining": True, "StoppingCondition": condition}


def course(job: Payload) -> list[str]:
    return [transition["Status"] for transition in job["SecondaryStatusTransitions"]]


def test_a_job_whose_instances_are_taken_back_waits_and_goes_on(start: Start, tmp_path: Path) -> None:
    job = start(ONCE_TOLD, **spot(after_seconds=2, wait_seconds=2)).ended()
    # As AWS documents it for one interruption ("Managed Spot Training Lifecycle").
    assert course(job) == [
        "Starting", "Downloading", "Training", "Interrupted", "Starting", "Downloading", "Training", "Uploading",
        "Completed",
    ]  # fmt: skip
    assert (tmp_path / "note").read_text() == "told", "the program could save what it had"
    assert 1 <= job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"] - 1, "nobody pays for waiting"
    interrupted = job["SecondaryStatusTransitions"][3]
    assert interrupted["EndTime"] - interrupted["StartTime"] >= 2


def test_a_job_waits_for_so_long_and_no_longer(start: Start) -> None:
    # Long enough for a busy machine to interrupt it first.
    job = start("import time; time.sleep(600)", **spot(5, 5, after_seconds=0, wait_seconds=60)).ended()
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
    assert course(job)[3:] == ["Interrupted", "Stopping", "MaxWaitTimeExceeded"]


def test_a_job_that_waits_can_be_stopped(start: Start) -> None:
    job = start("import time; time.sleep(600)", **spot(after_seconds=0, wait_seconds=60))
    wait_until(lambda: job.described()["SecondaryStatus"] == "Interrupted")
    job.service.call("StopTrainingJob", {"TrainingJobName": "job"}, CALLER)
    assert (job.ended()["TrainingJobStatus"], job.described()["SecondaryStatus"]) == ("Stopped", "Stopped")


@pytest.mark.parametrize(
    ("on_spot", "statuses", "first"),
    [(True, ["Starting"], "Interrupted"), (False, ["Starting"], None), (True, ["Interrupted", "Restarting"], None)],
    ids=["once", "not on spot capacity", "not again after a restart"],
)
def test_a_job_is_interrupted_once_and_waiting_is_no_running(
    monkeypatch: pytest.MonkeyPatch, on_spot: bool, statuses: list[str], first: str | None
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    job = {
        "EnableManagedSpotTraining": on_spot,
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
        now += limits.interrupted() if found[-1] == "Interrupted" else waiting
    assert found == [first, None, "MaxRuntimeExceeded", "MaxWaitTimeExceeded"]


def test_a_rule_ends_as_one_whose_own_job_failed(start: Start) -> None:
    rule = {"RuleConfigurationName": "Overfit", "RuleEvaluatorImage": "image"}
    (status,) = start("", DebugRuleConfigurations=[rule]).described()["DebugRuleEvaluationStatuses"]
    assert (status["RuleConfigurationName"], status["RuleEvaluationStatus"]) == ("Overfit", "Error")
