"""`kennel train` and `kennel package` on SageMaker: earlier jobs that are followed, stopped, packaged, or not there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from fake_s3 import FakeS3
from fake_stage import FakeStage

from cli.errors import NotReadyError, WorkFailedError
from cli.training import commands, packaging, sagemaker

START = datetime(2026, 11, 27, tzinfo=UTC)


class FakeSageMaker:
    """Jobs by name: a status, and the bucket of its outputs; the newest last."""

    def __init__(self, **jobs: tuple[str, str]) -> None:
        self.jobs = {name.replace("_", "-"): found for name, found in jobs.items()}

    def _described(self, name: str) -> dict[str, Any]:
        status, bucket = self.jobs[name]
        return {
            "TrainingJobName": name,
            "TrainingJobStatus": status,
            "CreationTime": START + timedelta(hours=list(self.jobs).index(name)),
            "ModelArtifacts": {"S3ModelArtifacts": f"s3://{bucket}/training/{name}/output/model.tar.gz"},
        }

    def describe_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:
        if TrainingJobName not in self.jobs:
            error = {"Code": "ValidationException", "Message": "Requested resource not found."}
            raise ClientError({"Error": error}, "DescribeTrainingJob")  # type: ignore[arg-type]
        return self._described(TrainingJobName)

    def stop_training_job(self, *, TrainingJobName: str) -> None:
        self.describe_training_job(TrainingJobName=TrainingJobName)

    def get_paginator(self, operation: str) -> Any:
        assert operation == "list_training_jobs"
        return SimpleNamespace(paginate=self._list)

    def _list(self, *, NameContains: str, StatusEquals: str, **_: str) -> list[dict[str, Any]]:
        found = [name for name, (status, _) in reversed(self.jobs.items()) if status == StatusEquals]
        return [{"TrainingJobSummaries": [self._described(name) for name in found if NameContains in name]}]


def stage_with(**jobs: tuple[str, str]) -> FakeStage:
    logs = SimpleNamespace(describe_log_streams=lambda **_: {"logStreams": []})
    return FakeStage(s3=FakeS3(), sagemaker=FakeSageMaker(**jobs), logs=logs)


@pytest.mark.parametrize("option", ["follow", "stop"])
def test_a_job_that_is_not_there_is_named(option: str) -> None:
    context: Any = SimpleNamespace(obj=stage_with())
    with pytest.raises(NotReadyError, match="no training job 'gone' in account 123456789012, region us-east-1"):
        commands.train(context, **{option: "gone"})


def test_a_stopped_job_may_have_a_model() -> None:
    with pytest.raises(WorkFailedError, match="ended as Stopped") as error:
        sagemaker.follow_training(stage_with(kennel_dev_1=("Stopped", "bucket")), "kennel-dev-1")
    assert "kennel package --job kennel-dev-1" in error.value.hint


def test_interrupting_the_command_leaves_the_job_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    context: Any = SimpleNamespace(obj=stage_with())
    for module, job in ((sagemaker, "kennel-dev-1"), (commands.ec2, "kennel-dev-ec2-1")):
        monkeypatch.setattr(module, "follow_training", interrupt)
        with pytest.raises(KeyboardInterrupt):
            commands.train(context, follow=job)
        assert f"--follow {job}  Stop it: kennel train --stop {job}" in capsys.readouterr().out


def test_jobs_from_before_a_stage_was_destroyed_are_not_packaged() -> None:
    jobs = {
        "kennel_dev_1": ("Completed", "bucket"),
        "kennel_dev_2": ("Completed", "the-bucket-of-an-earlier-deployment"),
        "kennel_dev_tune_3": ("Completed", "bucket"),
        "kennel_dev_4": ("Stopped", "bucket"),
    }
    assert packaging._newest_job(stage_with(**jobs)) == "kennel-dev-1"
    del jobs["kennel_dev_1"]
    with pytest.raises(NotReadyError, match="No training job of this stage has completed yet"):
        packaging._newest_job(stage_with(**jobs))
