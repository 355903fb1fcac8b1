"""What is packaged, and so deployed, is the model of a training that the command line has started.

A training may write anything below ``training/``: its role allows it. So can a program that it was talked into running.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_s3 import FakeS3
from fake_stage import FakeStage

from cli.errors import KennelError
from cli.training.ec2_jobs import write_launch
from cli.training.packaging import newest_job, package_model
from infra.bucket_layout import EC2_JOBS
from model.core import packaging
from programs.ec2_training.training_instance.job import Job, job_key

ON_EC2, ON_SAGEMAKER = "kennel-dev-ec2-20260101-000000-1", "kennel-dev-20260101-000000-1"
FUTURE = "kennel-dev-ec2-99991231-235959-9"
LIMIT_SECONDS = 3600
HOUR = timedelta(hours=1)
JOB = Job(name=ON_EC2, source="", channels={}, output="", checkpoints="", max_runtime_seconds=LIMIT_SECONDS)


class FakeSageMaker:
    """One completed training job, whatever it is asked for."""

    def __init__(self) -> None:
        self.ended = datetime.now(UTC)
        self.bucket, self.job = "bucket", ON_SAGEMAKER

    def get_paginator(self, _: str) -> FakeSageMaker:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        return [{"TrainingJobSummaries": [{"TrainingJobName": self.job, "CreationTime": self.ended - HOUR}]}]

    def describe_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:
        return {
            "TrainingJobStatus": "Completed",
            "CreationTime": self.ended - HOUR,
            "TrainingEndTime": self.ended,
            "ModelArtifacts": {"S3ModelArtifacts": f"s3://{self.bucket}/{model_key(TrainingJobName)}"},
        }


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    stage: Any = FakeStage(s3=FakeS3(), sagemaker=FakeSageMaker())
    relaunch(stage)
    stage.s3.objects.times[job_key(EC2_JOBS, ON_EC2)] -= HOUR
    for name in (ON_EC2, ON_SAGEMAKER):
        stage.s3.objects[model_key(name)] = f"the model of {name}".encode()
    claim(stage)
    monkeypatch.setattr(packaging, "package", lambda source, destination: destination.write_bytes(source.read_bytes()))
    return stage


def model_key(job: str) -> str:
    return f"training/{job}/output/model.tar.gz"


def claim(stage: Any, job: str = ON_EC2, **members: Any) -> None:
    """Write a status as an EC2 training does; any training can."""
    status = {
        "job": job, "instance_id": "i-1", "model": "s3://stranger/model.tar.gz",
        "state": "Completed", "reason": None, "instance_type": "t3.xlarge",
        "started": time.time() - 60, "ended": time.time(),
    }  # fmt: skip
    stage.s3.objects[f"training/{job}/status.json"] = json.dumps(status | members).encode()


def relaunch(stage: Any) -> None:
    stage.s3.objects.forget(model_key(ON_EC2))
    write_launch(stage, JOB, "t3.xlarge")


def packaged(stage: Any, folder: Path, job: str | None = None) -> str:
    package_model(stage, folder / "model.tar.gz", job=newest_job(stage) if job is None else job)
    return (folder / "model.tar.gz").read_text()


def refused(stage: Any, folder: Path, job: str, message: str) -> None:
    with pytest.raises(KennelError, match=message):
        packaged(stage, folder, job)
    assert list(folder.iterdir()) == []


def test_the_model_is_fetched_from_the_jobs_own_place_wherever_its_status_says(stage: Any, tmp_path: Path) -> None:
    assert packaged(stage, tmp_path) == f"the model of {ON_EC2}"
    stage.sagemaker.ended += 2 * HOUR  # so it was started later
    stage.s3.objects.times[model_key(ON_SAGEMAKER)] += 2 * HOUR
    assert packaged(stage, tmp_path) == f"the model of {ON_SAGEMAKER}"


def test_a_job_that_nobody_has_started_is_not_packaged_and_a_time_in_a_name_means_nothing(
    stage: Any, tmp_path: Path
) -> None:
    claim(stage, FUTURE)
    stage.sagemaker.job = "kennel-dev-99991231-235959-9"
    for job in (FUTURE, stage.sagemaker.job):
        stage.s3.objects[model_key(job)] = b"evil"
    refused(stage, tmp_path, FUTURE, f"There is no training job '{FUTURE}' on EC2")
    assert packaged(stage, tmp_path) == f"the model of {ON_EC2}"


def test_what_is_written_after_the_jobs_end_is_not_packaged(stage: Any, tmp_path: Path) -> None:
    for job in (ON_EC2, ON_SAGEMAKER):
        stage.s3.objects[model_key(job)] = b"evil"
        stage.s3.objects.times[model_key(job)] = datetime.now(UTC) + timedelta(seconds=6)
    refused(stage, tmp_path, ON_EC2, "was written 2 times since")
    assert packaged(stage, tmp_path, ON_SAGEMAKER) == f"the model of {ON_SAGEMAKER}"


def test_an_end_that_another_training_has_named_too_early_gives_it_no_model(stage: Any, tmp_path: Path) -> None:
    relaunch(stage)
    stage.s3.objects[model_key(ON_EC2)] = b"evil"
    claim(stage)
    stage.s3.objects[model_key(ON_EC2)] = b"its own"
    stage.s3.objects.times[model_key(ON_EC2)] += HOUR / 2
    refused(stage, tmp_path, ON_EC2, "was written 2 times since")


@pytest.mark.parametrize("job", [ON_EC2, ON_SAGEMAKER])
@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        ([-5, 0], "was written 2 times since"),
        ([-59 * 60, 0], "was written 2 times since"),
        ([6], "something else has written it"),
        ([-2 * 3600], "something else has written it"),
    ],
)
def test_a_model_that_need_not_be_the_jobs_own_is_refused(
    stage: Any, tmp_path: Path, job: str, seconds: list[int], message: str
) -> None:
    """Trainings of a stage share a role: one that runs beside another can write that one's model before or after it."""
    stage.s3.objects.forget(model_key(job))
    for later in seconds:
        stage.s3.objects[model_key(job)] = b"evil"
        stage.s3.objects.times[model_key(job)] = datetime.now(UTC) + timedelta(seconds=later)
    refused(stage, tmp_path, job, message)


@pytest.mark.parametrize("ended", [1e12, float("inf"), float("nan"), 0, None])
def test_the_end_is_when_s3_heard_of_it_and_within_the_instances_limit(
    stage: Any, tmp_path: Path, ended: float | None
) -> None:
    relaunch(stage)
    claim(stage, ended=ended)
    stage.s3.objects[model_key(ON_EC2)] = b"late"
    # The limit of its program, half an hour for all else, and what clocks may differ by.
    late = datetime.now(UTC) + timedelta(seconds=LIMIT_SECONDS + 1800 + 6)
    stage.s3.objects.times.update({model_key(ON_EC2): late, f"training/{ON_EC2}/status.json": late})
    refused(stage, tmp_path, ON_EC2, "something else has written it")


@pytest.mark.parametrize("first", ["Failed", "Stopped", "Completed"])
@pytest.mark.parametrize("then", ["Failed", "Completed", "Interrupted", "Training", None])
def test_what_a_job_first_ended_as_stays(stage: Any, tmp_path: Path, first: str, then: str | None) -> None:
    relaunch(stage)
    stage.s3.objects[model_key(ON_EC2)] = b"its own"
    claim(stage, state="Interrupted")  # no end: another instance goes on
    claim(stage, state=first)
    stage.s3.objects.times[f"training/{ON_EC2}/status.json"] -= timedelta(microseconds=1)
    claim(stage, **({"state": then} if then else {"started": "not a status"}))
    if first == "Failed":
        refused(stage, tmp_path, ON_EC2, r"has left no model \(state Failed")
    else:
        assert packaged(stage, tmp_path, ON_EC2) == "its own"
    stage.sagemaker.ended -= 2 * HOUR
    stage.s3.objects.times[model_key(ON_SAGEMAKER)] -= 2 * HOUR
    assert packaged(stage, tmp_path) == ("its own" if first == "Completed" else f"the model of {ON_SAGEMAKER}")


def test_a_resumed_job_is_believed_anew_but_not_in_a_model_of_before(stage: Any, tmp_path: Path) -> None:
    claim(stage, state="Failed")
    write_launch(stage, JOB, "t3.xlarge")
    stage.s3.objects.times[model_key(ON_EC2)] -= HOUR
    refused(stage, tmp_path, ON_EC2, "has not ended")
    claim(stage, state="Stopped")
    refused(stage, tmp_path, ON_EC2, "something else has written it")


def test_a_training_of_another_bucket_is_none_of_ours(stage: Any, tmp_path: Path) -> None:
    stage.sagemaker.bucket = "stranger"
    refused(stage, tmp_path, ON_SAGEMAKER, "it is not a training of this stage")


@pytest.mark.parametrize("job", ["../x", "a" * 64, ""])
def test_other_names_are_refused_before_anything_is_asked(stage: Any, tmp_path: Path, job: str) -> None:
    stage.s3 = stage.sagemaker = None
    refused(stage, tmp_path, job, "is not the name of a job")
