"""What has to be over before a stage's stacks can go."""

from __future__ import annotations

from typing import Any

import pytest

from cli import deploying
from cli.aws import Stage


class FakeSageMaker:
    """Training jobs by name, with their statuses."""

    def __init__(self, **jobs: str) -> None:
        self.jobs = {f"kennel-dev-{name}": status for name, status in jobs.items()}
        self.stopped: list[str] = []
        self.waited_for: list[str] = []

    def get_paginator(self, operation: str) -> FakeSageMaker:
        assert operation == "list_training_jobs"
        return self

    def paginate(self, *, NameContains: str, StatusEquals: str) -> list[dict[str, Any]]:
        names = [name for name, status in self.jobs.items() if NameContains in name and status == StatusEquals]
        return [{"TrainingJobSummaries": [{"TrainingJobName": name} for name in names]}]

    def stop_training_job(self, *, TrainingJobName: str) -> None:
        self.stopped.append(TrainingJobName)
        self.jobs[TrainingJobName] = "Stopping"

    def get_waiter(self, name: str) -> FakeSageMaker:
        assert name == "training_job_completed_or_stopped"
        return self

    def wait(self, *, TrainingJobName: str, **_: Any) -> None:
        self.waited_for.append(TrainingJobName)


def test_what_runs_is_stopped_and_what_is_stopping_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, sagemaker = Stage("dev"), FakeSageMaker(running="InProgress", stopping="Stopping", done="Completed")
    monkeypatch.setattr(Stage, "client", lambda *_, **__: sagemaker)
    deploying._stop_jobs(stage, "training")
    assert sagemaker.stopped == ["kennel-dev-running"]
    assert sorted(sagemaker.waited_for) == ["kennel-dev-running", "kennel-dev-stopping"]
