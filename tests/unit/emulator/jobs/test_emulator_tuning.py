"""The course of a tuning job, over training jobs that end when the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import CALLER, tuning_job
from waiting import wait_until

from emulator.platform.awsapi import Payload, ServiceError
from emulator.platform.store import Record, Store
from emulator.sagemaker.resources import TUNING_JOB, Resources
from emulator.sagemaker.tuning.definition import TuningDefinition
from emulator.sagemaker.tuning.job import TuningRun


class Course:
    """A tuning job that is under way, and its training jobs, which have no programs."""

    def __init__(self, store: Store, **config: Any) -> None:
        self.jobs: list[Record] = []
        self.most_running = 0
        self.refusing = False
        self.resources = Resources(store, TUNING_JOB)
        self.record = self.resources.create(CALLER, tuning_job(config), HyperParameterTuningJobStatus="InProgress")
        self.begin()

    def begin(self) -> None:
        defined = TuningDefinition(self.record)
        training: Any = self
        self.run = TuningRun(self.resources, self.record, defined, defined.search("seed", [], []), training)
        self.run.start()

    def interrupt(self) -> None:
        self.run.interrupt()
        self.run.join(5)
        assert not self.run.alive

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
        job = next(job for job in self.jobs if job["TrainingJobName"] == name)
        metrics = [{"MetricName": "loss", "Value": loss}] if loss is not None else []
        job.update(FinalMetricDataList=metrics, TrainingJobStatus=status)

    @property
    def running(self) -> list[str]:
        return [job["TrainingJobName"] for job in self.jobs if job["TrainingJobStatus"] == "InProgress"]

    def wait_for_running(self, count: int) -> list[str]:
        wait_until(lambda: len(self.running) == count)
        return self.running

    def wait_for_end(self) -> str:
        arn, member = self.record["HyperParameterTuningJobArn"], TUNING_JOB.status_member
        return wait_until(lambda: (status := self.resources.require_arn(arn)[member]) != "InProgress" and status)


@pytest.fixture
def course(tmp_path: Path) -> Iterator[Any]:
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
        found.end(found.wait_for_running(count)[0], loss=1.0)
    assert found.wait_for_end() == "Completed"
    assert (len(found.jobs), found.most_running) == (5, 2)


def test_time_runs_out(course: Any) -> None:
    limits = {"MaxNumberOfTrainingJobs": 9, "MaxParallelTrainingJobs": 1, "MaxRuntimeInSeconds": 120}
    found = course(ResourceLimits=limits)
    found.end(found.wait_for_running(1)[0], loss=1.0)
    found.wait_for_running(1)
    found.interrupt()
    # Taken up again after the two minutes, as by a server that was down for that long.
    found.record["CreationTime"] -= 121
    found.begin()
    assert found.wait_for_end() == "Completed"
    assert [job["TrainingJobStatus"] for job in found.jobs] == ["Completed", "Stopped"]


def test_a_search_whose_launch_is_refused_fails_with_the_reason_and_ends_what_it_has_started(course: Any) -> None:
    found = course()
    first, _ = found.wait_for_running(2)
    found.refusing = True
    found.end(first, loss=1.0)
    assert found.wait_for_end() == "Failed"
    record = found.resources.require_arn(found.record["HyperParameterTuningJobArn"])
    assert (record["FailureReason"], found.running) == ("ClientError: the name is taken", [])


def test_a_job_that_failed_is_never_the_best() -> None:
    jobs = [
        {"TrainingJobStatus": status, "FinalMetricDataList": [{"MetricName": "loss", "Value": value}]}
        for status, value in (("Completed", 0.5), ("Stopped", 0.4), ("Failed", 0.1))
    ]
    assert TuningDefinition(tuning_job()).best(jobs) == jobs[1]
