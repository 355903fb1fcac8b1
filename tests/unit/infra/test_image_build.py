"""The function behind the custom resource that builds the serving image, with fakes of CodeBuild, ECR and the logs."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

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


class ImageNotFoundException(ClientError):
    def __init__(self) -> None:
        super().__init__({"Error": {"Code": "ImageNotFoundException"}}, "DescribeImages")


class FakeAws:
    """A repository, a project whose builds go through the given states, and the log that they write."""

    exceptions = SimpleNamespace(ImageNotFoundException=ImageNotFoundException)

    def __init__(self, *states: str) -> None:
        self.states = iter(states)
        self.tags: set[str] = set()
        self.started: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self.log = [f"line {n}" for n in range(1000)]
        self.refused: str | None = None
        self.seconds_left = 900.0

    def _call(self, operation: str) -> None:
        if self.refused == operation:
            raise ClientError({"Error": {"Code": "AccountLimitExceededException", "Message": "0 builds"}}, operation)

    def describe_images(self, repositoryName: str, imageIds: list[dict[str, str]]) -> dict[str, Any]:
        self._call("describe_images")
        if imageIds[0]["imageTag"] not in self.tags:
            raise ImageNotFoundException
        return {"imageDetails": [{"imageTags": [imageIds[0]["imageTag"]]}]}

    def start_build(self, **build: Any) -> dict[str, Any]:
        self._call("start_build")
        self.started.append(build)
        return {"build": self._build()}

    def batch_get_builds(self, ids: list[str]) -> dict[str, Any]:
        return {"builds": [self._build()]}

    def stop_build(self, id: str) -> None:
        self.stopped.append(id)

    def _build(self) -> dict[str, Any]:
        state = next(self.states)
        if state == "SUCCEEDED":
            self.tags.add(self.started[-1]["environmentVariablesOverride"][0]["value"])
        contexts = [{"message": "exit status 1"}] if state == "FAILED" else []
        return {
            "id": "project:1",
            "buildStatus": state,
            "phases": [{"phaseType": "SUBMITTED"}, {"phaseType": "BUILD", "contexts": contexts}],
            "logs": {"groupName": "group", "streamName": "stream"} if state != "FAULT" else {},
        }

    def get_log_events(self, logGroupName: str, logStreamName: str, limit: int, startFromHead: bool) -> dict[str, Any]:
        self._call("get_log_events")
        assert (logGroupName, logStreamName, startFromHead) == ("group", "stream", False)
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


def test_a_missing_image_is_built_once_beside_the_old_ones_and_its_address_returned(respond: Respond) -> None:
    aws = FakeAws("IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED")
    aws.tags.add("arm64-old")
    answer = respond(aws, request("Create", None))
    assert (answer["Status"], answer["Data"]) == BUILT
    (build,) = aws.started
    assert (build["projectName"], build["idempotencyToken"]) == ("project", "request-1")
    assert aws.tags == {"arm64-old", PROPERTIES["Tag"]}
    assert answer["PhysicalResourceId"] == "repository"  # whatever the image: another one is not another resource


def test_an_image_that_is_there_is_not_built_again(respond: Respond) -> None:
    aws = FakeAws()
    aws.tags.add(PROPERTIES["Tag"])
    answer = respond(aws, request("Update"))
    assert (answer["Status"], answer["Data"]) == BUILT
    assert aws.started == []


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
    assert aws.stopped == ["project:1"]
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
    aws.refused = refused
    answer = respond(aws, request("Create"))
    assert answer["Status"] == "FAILED"
    assert [part for part in parts if part not in answer["Reason"]] == []


def test_deleting_does_nothing_and_succeeds(respond: Respond) -> None:
    aws = FakeAws()
    answer = respond(aws, request("Delete", "what a request left that failed early"))
    assert (answer["Status"], answer["PhysicalResourceId"]) == ("SUCCESS", "what a request left that failed early")
    assert (aws.started, aws.stopped) == ([], [])


@given(st.text(max_size=6000))
def test_no_reason_is_too_long_for_cloudformation_and_its_end_stays(reason: str) -> None:
    body = image_build.answer(request("Create"), reason)
    assert len(body) <= image_build.MAX_ANSWER_BYTES
    answer = json.loads(body)
    assert answer["Status"] == ("FAILED" if reason else "SUCCESS")
    assert (answer["Reason"][:1], answer["Reason"][-1:]) == (reason[:1], reason[-1:])
