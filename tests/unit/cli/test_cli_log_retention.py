"""What SageMaker logs expires, unless somebody has decided otherwise."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from fake_account import refusal
from fake_stage import FakeStage

from cli.operating.log_retention import limit_logs
from infra.settings import NotebookSettings

TRAININGS, TRANSFORMS = "/aws/sagemaker/TrainingJobs", "/aws/sagemaker/TransformJobs"


class FakeLogs:
    """CloudWatch Logs: retention by group, None for a group that never expires."""

    def __init__(self, groups: dict[str, int | None]) -> None:
        self.groups = groups
        self.refuses = ""
        self.exceptions = SimpleNamespace(ResourceAlreadyExistsException=KeyError)

    def create_log_group(self, *, logGroupName: str) -> None:
        if self.refuses == "CreateLogGroup":
            raise refusal("AccessDeniedException", "no")
        if logGroupName in self.groups:
            raise KeyError
        self.groups[logGroupName] = None

    def describe_log_groups(self, *, logGroupNamePrefix: str, limit: int) -> dict[str, Any]:
        name = min(name for name in self.groups if name.startswith(logGroupNamePrefix))
        days = self.groups[name]
        return {"logGroups": [{"logGroupName": name, **({"retentionInDays": days} if days is not None else {})}]}

    def put_retention_policy(self, *, logGroupName: str, retentionInDays: int) -> None:
        if self.refuses == "PutRetentionPolicy":
            raise refusal("AccessDeniedException", "no")
        self.groups[logGroupName] = retentionInDays


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {TRAININGS: 90}),
        ({TRAININGS: None, f"{TRAININGS}-of-another": None}, {TRAININGS: 90, f"{TRAININGS}-of-another": None}),
        ({TRAININGS: 3653}, {TRAININGS: 3653}),
    ],
    ids=["not yet made", "without an end", "decided by somebody"],
)
def test_a_group_expires_from_its_first_line_on_unless_somebody_has_decided(
    before: dict[str, int | None], after: dict[str, int]
) -> None:
    logs = FakeLogs(before)
    limit_logs(FakeStage(logs=logs), ["training"])
    assert logs.groups == after


def test_endpoint_batches_and_notebook_expire_too() -> None:
    logs = FakeLogs({})
    stage = FakeStage(outputs={"EndpointName": "dogs"}, logs=logs)
    stage.__dict__["settings"] = replace(stage.settings, notebook=NotebookSettings())
    limit_logs(stage, ["storage", "training", "inference"])
    own = {"/aws/sagemaker/NotebookInstances": 90, "/aws/sagemaker/Endpoints/dogs": 30}
    assert logs.groups == {TRAININGS: 90, TRANSFORMS: 30, **own}


@pytest.mark.parametrize("operation", ["CreateLogGroup", "PutRetentionPolicy"])
def test_a_person_who_may_not_decide_is_told_and_the_deployment_stands(
    operation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = FakeLogs({})
    logs.refuses = operation
    limit_logs(FakeStage(logs=logs), ["training"])
    assert f"The log group {TRAININGS} may never expire: no" in capsys.readouterr().out
