"""The course of a tuning job, over training jobs that end when the test says so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import CALLER, training_job
from waiting import wait_until

from emulator.platform.awsapi import Payload, ServiceError
from emulator.platform.store import Record, Store
from emulator.sagemaker.resources import TUNING_JOB, Resources
from emulator.sagemaker.tuning.definition import TuningDefinition
from emulator.sagemaker.tuning.job import TuningRun


class FakeTrainingJobs:
    """Training jobs without programs."""

    def __init__(self) -> None:
        self.jobs: list[Record] = []
        self.most_running = 0
        self.refusing = False

    def launch(self, request: Payload, caller: Any, **members: Any) -> Record:
        if self.refusing:
            raise ServiceError("ResourceInUse", "the name is taken")
        job = {**request, "TrainingJobArn": request["TrainingJobName"], "TrainingJobStatus": "InProgress", **members}
        self.jobs.append(job)
        self.most_running = max(self.most_running, len(self.running))
        return dict(job)

    def launched_by(self, arn: str) -> list[Record]:
        return [dict(job) for job in self.jobs]

    def metric_values(self, arn: str, metric: str) -> tuple[float, ...]:
        return ()

    def request_stop(self, arn: str) -> None:
        self.end(arn, "Stopped")

    def end(self, name: str, status: str = "Completed", loss: float | None = None) -> None:
        """Let a job end."""
        job = next(job for job in self.jobs if job["TrainingJobName"] == name)
        if job["TrainingJobStatus"] != "InProgress":
            raise ServiceError("ValidationException", "it has ended")
        metrics = [{"MetricName": "loss", "Value": loss}] if loss is not None else []
        job.update(FinalMetricDataList=metrics, TrainingEndTime=time.time(), TrainingJobStatus=status)

    @property
    def running(self) -> list[str]:
        return [job["TrainingJobName"] for job in self.jobs if job["TrainingJobStatus"] == "InProgress"]


class Course:
    """A tuning job that is under way."""

    def __init__(self, store: Store, **config: Any) -> None:
        definition = training_job()
        del definition["TrainingJobName"]
        definition["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "loss", "Regex": "loss=(.*)"}]
        request = {
            "HyperParameterTuningJobName": "tuning",
            "HyperParameterTuningJobConfig": {
                "Strategy": "Random",
                "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
                "ResourceLimits": {"MaxNumberOfTrainingJobs": 5, "MaxParallelTrainingJobs": 2},
                "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "lr", "MinValue": "0", "MaxValue": "1"}]},
                **config,
            },
            "TrainingJobDefinition": definition,
        }
        self.resources = Resources(store, TUNING_JOB)
        self.record = self.resources.create(CALLER, request, HyperParameterTuningJobStatus="InProgress")
        self.training = FakeTrainingJobs()
        self.begin()

    def begin(self) -> None:
        defined = TuningDefinition(self.record)
        training: Any = self.training
        self.run = TuningRun(self.record, defined, defined.search("seed", [], []), self.resources, training)
        self.run.start()

    def interrupt(self) -> None:
        self.run.interrupt()
        self.run.join(5)
        assert not self.run.alive

    def described(self) -> Record:
        return self.resources.require_arn(self.record["HyperParameterTuningJobArn"])

    def status(self) -> str:
        return str(self.described()["HyperParameterTuningJobStatus"])

    def wait_for_running(self, count: int) -> list[str]:
        wait_until(lambda: len(self.training.running) == count)
        return self.training.running

    def wait_for_end(self) -> str:
        return wait_until(lambda: (status := self.status()) != "InProgress" and status)


@pytest.fixture
def course(tmp_path: Path) -> Iterator[Any]:
    """Begins a tuning job with a configuration."""
    store, begun = Store(tmp_path), []

    def begin(**config: Any) -> Course:
        begun.append(Course(store, **config))
        return begun[0]

    yield begin
    for started in begun:
        started.interrupt()
    store.close()


def test_never_more_jobs_run_than_may_and_all_are_run(course: Any) -> None:
    found = course()
    for count in (2, 2, 2, 2, 1):
        found.training.end(found.wait_for_running(count)[0], loss=1.0)
    assert found.wait_for_end() == "Completed"
    assert len(found.training.jobs) == 5
    assert found.training.most_running == 2


def test_too_little_progress_ends_the_search_and_what_still_runs(course: Any) -> None:
    found = course(
        ResourceLimits={"MaxParallelTrainingJobs": 2},
        TuningJobCompletionCriteria={"BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 3}},
    )
    for loss in (1.0, 0.999, 0.998):
        found.training.end(found.wait_for_running(2)[0], loss=loss)
    assert found.status() == "InProgress"
    found.training.end(found.wait_for_running(2)[0], "Failed")
    assert found.wait_for_end() == "Completed"
    assert found.training.running == []


def test_time_runs_out(course: Any) -> None:
    limits = {"MaxNumberOfTrainingJobs": 9, "MaxParallelTrainingJobs": 1, "MaxRuntimeInSeconds": 120}
    found = course(ResourceLimits=limits)
    found.training.end(found.wait_for_running(1)[0], loss=1.0)
    found.wait_for_running(1)
    found.interrupt()
    # Taken up again after the two minutes, as by a server that was down for that long.
    found.record["CreationTime"] -= 121
    found.begin()
    assert found.wait_for_end() == "Completed"
    assert [job["TrainingJobStatus"] for job in found.training.jobs] == ["Completed", "Stopped"]


def test_a_search_that_cannot_go_on_fails_with_a_reason_and_ends_what_it_has_started(course: Any) -> None:
    found = course()
    first, _ = found.wait_for_running(2)
    found.training.refusing = True
    found.training.end(first, loss=1.0)
    assert found.wait_for_end() == "Failed"
    assert found.described()["FailureReason"] == "ClientError: the name is taken"
    assert found.training.running == []
