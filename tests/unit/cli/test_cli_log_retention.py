"""What SageMaker logs expires, unless somebody has decided otherwise."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import botocore.exceptions
import pytest
from fake_stage import FakeStage

from cli.errors import AwsError
from cli.operating.log_retention import limit_logs
from infra.settings import NotebookSettings

ENDPOINT = "/aws/sagemaker/Endpoints/Endpoint8024A810-x"
TRAININGS, TRANSFORMS = "/aws/sagemaker/TrainingJobs", "/aws/sagemaker/TransformJobs"


class FakeLogs:
    """CloudWatch Logs: retention by group, None for a group that never expires."""

    class ResourceAlreadyExistsException(Exception):
        pass

    def __init__(self, **groups: int | None) -> None:
        self.groups = dict(groups)
        self.refuses: dict[str, str] = {}
        self.exceptions = SimpleNamespace(ResourceAlreadyExistsException=self.ResourceAlreadyExistsException)

    def _check(self, operation: str) -> None:
        if code := self.refuses.get(operation):
            raise botocore.exceptions.ClientError({"Error": {"Code": code, "Message": "no"}}, operation)

    def create_log_group(self, *, logGroupName: str) -> None:
        self._check("CreateLogGroup")
        if logGroupName in self.groups:
            raise self.ResourceAlreadyExistsException
        self.groups[logGroupName] = None

    def describe_log_groups(self, *, logGroupNamePrefix: str, limit: int) -> dict[str, Any]:
        names = sorted(name for name in self.groups if name.startswith(logGroupNamePrefix))[:limit]
        days = {name: self.groups[name] for name in names}
        found = [{"logGroupName": n, **({"retentionInDays": d} if d is not None else {})} for n, d in days.items()]
        return {"logGroups": found}

    def put_retention_policy(self, *, logGroupName: str, retentionInDays: int) -> None:
        self._check("PutRetentionPolicy")
        self.groups[logGroupName] = retentionInDays


def deployed(logs: FakeLogs) -> FakeStage:
    return FakeStage(outputs={"EndpointName": ENDPOINT.rsplit("/", 1)[-1]}, logs=logs)


def test_groups_that_sagemaker_has_not_made_yet_expire_from_their_first_line_on() -> None:
    logs = FakeLogs()
    limit_logs(deployed(logs), ["storage", "training", "inference"])
    assert logs.groups == {TRAININGS: 90, TRANSFORMS: 30, ENDPOINT: 30}


def test_a_group_without_an_end_gets_one() -> None:
    logs = FakeLogs(**{TRAININGS: None, f"{TRAININGS}-of-another-project": None})
    limit_logs(deployed(logs), ["training"])
    assert logs.groups == {TRAININGS: 90, f"{TRAININGS}-of-another-project": None}


def test_what_somebody_has_decided_stays() -> None:
    logs = FakeLogs(**{TRAININGS: 3653})
    limit_logs(deployed(logs), ["training"])
    assert logs.groups == {TRAININGS: 3653}


def test_a_second_deployment_changes_nothing() -> None:
    logs = FakeLogs()
    for _ in range(2):
        limit_logs(deployed(logs), ["training"])
    assert logs.groups == {TRAININGS: 90}


def test_a_notebook_logs_as_long_as_trainings() -> None:
    logs = FakeLogs()
    stage = deployed(logs)
    stage.__dict__["settings"] = replace(stage.settings, notebook=NotebookSettings())
    limit_logs(stage, ["training"])
    assert logs.groups == {TRAININGS: 90, "/aws/sagemaker/NotebookInstances": 90}


@pytest.mark.parametrize("operation", ["CreateLogGroup", "PutRetentionPolicy"])
def test_a_person_who_may_not_decide_is_told_and_the_deployment_stands(
    operation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = FakeLogs()
    logs.refuses[operation] = "AccessDeniedException"
    limit_logs(deployed(logs), ["training"])
    assert f"The log group {TRAININGS} may never expire: no" in capsys.readouterr().out.replace("\n", " ")


def test_any_other_refusal_is_an_error() -> None:
    logs = FakeLogs()
    logs.refuses["PutRetentionPolicy"] = "LimitExceededException"
    with pytest.raises(AwsError):
        limit_logs(deployed(logs), ["training"])
