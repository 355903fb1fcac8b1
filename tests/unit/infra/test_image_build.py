"""The function behind the custom resource that builds the serving image, with fakes of CodeBuild, ECR and the logs."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from programs.image_build import image_build

PROPERTIES = {
    "ServiceToken": "arn:aws:lambda:us-east-1:111122223333:function:f",
    "ProjectName": "project",
    "RepositoryName": "repository",
    "RepositoryUri": "111122223333.dkr.ecr.us-east-1.amazonaws.com/repository",
    "Tag": "arm64-0123456789abcdef",
}
BUILT = ("SUCCESS", {"ImageUri": f"{PROPERTIES['RepositoryUri']}:{PROPERTIES['Tag']}"})


def request(kind: str, physical_id: str | None = "repository") -> dict[str, Any]:
    """What CloudFormation sends."""
    return {
        "RequestType": kind,
        "RequestId": "request-1",
        "ResponseURL": "https://cloudformation.example/answer",
        "StackId": "stack",
        "LogicalResourceId": "Image",
        "ResourceProperties": PROPERTIES,
        "PhysicalResourceId": physical_id,
    }


class ImageNotFoundError(Exception):
    pass


def build(status: str) -> dict[str, Any]:
    """A build as CodeBuild describes it."""
    contexts = [{"message": "exit status 1"}] if status == "FAILED" else []
    return {
        "id": "project:1",
        "buildStatus": status,
        "phases": [{"phaseType": "SUBMITTED"}, {"phaseType": "BUILD", "contexts": contexts}],
        "logs": {"groupName": "group", "streamName": "stream"} if status != "FAULT" else {},
    }


class FakeAws:
    """CodeBuild with a build that goes through the given states, ECR with tags, and the log that the build writes."""

    def __init__(self, *states: str) -> None:
        builds = [build(state) for state in states]
        self.exceptions = SimpleNamespace(ImageNotFoundException=ImageNotFoundError)
        self.describe_images = Mock(side_effect=ImageNotFoundError)
        self.start_build = Mock(return_value={"build": builds[0] if builds else None})
        self.batch_get_builds = Mock(side_effect=[{"builds": [found]} for found in builds[1:]])
        self.stop_build = Mock()
        self.log = [f"line {n}" for n in range(1000)]
        self.seconds_left = 900.0

    def get_log_events(self, *, limit: int, startFromHead: bool, **stream: str) -> dict[str, Any]:
        assert (stream, startFromHead) == ({"logGroupName": "group", "logStreamName": "stream"}, False)
        return {"events": [{"message": f"{line}\n"} for line in self.log[-limit:]]}

    def sleep(self, seconds: float) -> None:
        self.seconds_left -= seconds


Respond = Callable[[FakeAws, dict[str, Any]], dict[str, Any]]


@pytest.fixture
def respond(monkeypatch: pytest.MonkeyPatch) -> Respond:
    """Call the handler with a fake AWS; returns what CloudFormation is told."""

    def call(aws: FakeAws, event: dict[str, Any]) -> dict[str, Any]:
        sent: list[tuple[str, bytes]] = []
        monkeypatch.setattr(image_build.boto3, "client", lambda service: aws)
        monkeypatch.setattr(image_build, "time", SimpleNamespace(sleep=aws.sleep))
        monkeypatch.setattr(image_build, "_send", lambda url, body: sent.append((url, body)))
        context = SimpleNamespace(
            get_remaining_time_in_millis=lambda: aws.seconds_left * 1000, log_group_name="/the/log"
        )
        image_build.handler(event, context)
        ((url, body),) = sent
        assert url == event["ResponseURL"]
        answer = json.loads(body)
        for name in ("StackId", "RequestId", "LogicalResourceId"):
            assert answer[name] == event[name]
        return answer

    return call


def test_a_missing_image_is_built_once_and_its_address_returned(respond: Respond) -> None:
    aws = FakeAws("IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED")
    answer = respond(aws, request("Create", None))
    assert (answer["Status"], answer["Data"]) == BUILT
    aws.start_build.assert_called_once_with(
        projectName="project",
        environmentVariablesOverride=[{"name": "IMAGE_TAG", "value": PROPERTIES["Tag"], "type": "PLAINTEXT"}],
        idempotencyToken="request-1",
    )
    assert answer["PhysicalResourceId"] == "repository"  # whatever the image: another one is not another resource


def test_an_image_that_is_there_is_not_built_again(respond: Respond) -> None:
    aws = FakeAws()
    aws.describe_images = Mock(return_value={"imageDetails": [{"imageTags": [PROPERTIES["Tag"]]}]})
    answer = respond(aws, request("Update"))
    assert (answer["Status"], answer["Data"]) == BUILT
    aws.describe_images.assert_called_once_with(repositoryName="repository", imageIds=[{"imageTag": PROPERTIES["Tag"]}])
    assert not aws.start_build.called


def test_a_failed_build_fails_the_deployment_with_the_end_of_its_log(respond: Respond) -> None:
    aws = FakeAws("IN_PROGRESS", "FAILED")
    aws.log.append("ERROR: no matching distribution for numpy==0")
    answer = respond(aws, request("Create"))
    assert answer["Status"] == "FAILED"
    assert answer["Reason"].startswith(
        "The build project:1 ended as FAILED.\nBUILD: exit status 1\nThe end of its log (group, stream):\nline"
    )
    assert answer["Reason"].endswith("\nERROR: no matching distribution for numpy==0")
    assert "line 0\n" not in answer["Reason"]


def test_a_build_that_takes_too_long_is_stopped_and_answered_in_time(respond: Respond) -> None:
    aws = FakeAws(*["IN_PROGRESS"] * 1000)
    answer = respond(aws, request("Create"))
    assert answer["Status"] == "FAILED"
    assert "did not finish in time and was stopped" in answer["Reason"]
    aws.stop_build.assert_called_once_with(id="project:1")
    assert aws.seconds_left > 20  # left to answer


@pytest.mark.parametrize(
    ("states", "refused", "parts"),
    [
        (["FAULT"], None, ["ended as FAULT", "(empty)"]),
        (["FAILED"], "get_log_events", ["BUILD: exit status 1", "cannot be read"]),
        ([], "start_build", ["AccountLimitExceededException", "kennel image push"]),
        ([], "describe_images", ["AccountLimitExceededException", "/the/log"]),
    ],
)
def test_every_other_end_is_a_failure_with_its_reason(
    respond: Respond, states: list[str], refused: str | None, parts: list[str]
) -> None:
    aws = FakeAws(*states)
    if refused:
        error = {"Error": {"Code": "AccountLimitExceededException", "Message": "0 builds"}}
        setattr(aws, refused, Mock(side_effect=ClientError(error, refused)))
    answer = respond(aws, request("Create"))
    assert answer["Status"] == "FAILED"
    assert [part for part in parts if part not in answer["Reason"]] == []


def test_deleting_does_nothing_and_succeeds(respond: Respond) -> None:
    aws = FakeAws()
    answer = respond(aws, request("Delete", "what a request left that failed early"))
    assert (answer["Status"], answer["PhysicalResourceId"]) == ("SUCCESS", "what a request left that failed early")
    assert not aws.start_build.called
    assert not aws.stop_build.called


@given(st.text(max_size=6000))
def test_no_reason_is_too_long_for_cloudformation_and_its_end_stays(reason: str) -> None:
    body = image_build.answer(request("Create"), reason)
    assert len(body) <= image_build.MAX_ANSWER_BYTES
    answer = json.loads(body)
    assert answer["Status"] == ("FAILED" if reason else "SUCCESS")
    assert (answer["Reason"][:1], answer["Reason"][-1:]) == (reason[:1], reason[-1:])
