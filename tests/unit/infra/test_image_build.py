"""The function behind the custom resource that builds the serving image, with fakes of CodeBuild, ECR and the logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
URI = f"{PROPERTIES['RepositoryUri']}:{PROPERTIES['Tag']}"


def request(kind: str, **more: Any) -> dict[str, Any]:
    """What CloudFormation sends."""
    return {
        "RequestType": kind,
        "RequestId": "request-1",
        "ResponseURL": "https://cloudformation.example/answer",
        "StackId": "stack",
        "LogicalResourceId": "Image",
        "ResourceProperties": PROPERTIES,
        **more,
    }


class ImageNotFoundException(ClientError):
    def __init__(self) -> None:
        super().__init__({"Error": {"Code": "ImageNotFoundException"}}, "DescribeImages")


class FakeAws:
    """A repository, a project whose builds go through the given states, and the log that they write."""

    exceptions = SimpleNamespace(ImageNotFoundException=ImageNotFoundException)

    def __init__(self, *states: str) -> None:
        self.states: Iterator[str] = iter(states)
        self.tags: set[str] = set()
        self.started: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self.log = [f"Step {n}/9" for n in range(1, 10)]
        self.log_error: str | None = None
        self.seconds_left = 900.0

    # ECR
    def describe_images(self, repositoryName: str, imageIds: list[dict[str, str]]) -> dict[str, Any]:
        assert repositoryName == "repository"
        (wanted,) = imageIds
        if wanted["imageTag"] not in self.tags:
            raise ImageNotFoundException
        return {"imageDetails": [{"imageTags": [wanted["imageTag"]]}]}

    # CodeBuild
    def start_build(self, **build: Any) -> dict[str, Any]:
        self.started.append(build)
        return {"build": self._build()}

    def batch_get_builds(self, ids: list[str]) -> dict[str, Any]:
        assert ids == ["project:1"]
        return {"builds": [self._build()]}

    def stop_build(self, id: str) -> None:
        self.stopped.append(id)

    def _build(self) -> dict[str, Any]:
        state = next(self.states)
        if state == "SUCCEEDED":
            (variable,) = self.started[-1]["environmentVariablesOverride"]
            self.tags.add(variable["value"])
        build: dict[str, Any] = {"id": "project:1", "buildStatus": state, "phases": [{"phaseType": "SUBMITTED"}]}
        if state == "FAILED":
            context = {"statusCode": "COMMAND_EXECUTION_ERROR", "message": "exit status 1"}
            build["phases"].append({"phaseType": "BUILD", "contexts": [context]})
        return build | {"logs": {"groupName": "group", "streamName": "stream"} if state != "FAULT" else {}}

    # CloudWatch Logs
    def get_log_events(self, logGroupName: str, logStreamName: str, limit: int, startFromHead: bool) -> dict[str, Any]:
        assert (logGroupName, logStreamName, startFromHead) == ("group", "stream", False)
        if self.log_error:
            raise ClientError({"Error": {"Code": self.log_error, "Message": "no"}}, "GetLogEvents")
        return {"events": [{"message": f"{line}\n"} for line in self.log[-limit:]]}

    # time
    def sleep(self, seconds: float) -> None:
        self.seconds_left -= seconds


@pytest.fixture
def respond(monkeypatch: pytest.MonkeyPatch):
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
        assert len(body) <= 4096
        answer = json.loads(body)
        assert {name: answer[name] for name in ("StackId", "RequestId", "LogicalResourceId")} == {
            name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")
        }
        return answer

    return call


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_a_missing_image_is_built_once_beside_the_old_ones_and_its_address_returned(respond, kind):
    aws = FakeAws("IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED")
    aws.tags.add("arm64-old")
    answer = respond(aws, request(kind, PhysicalResourceId="repository"))
    assert (answer["Status"], answer["Data"]) == ("SUCCESS", {"ImageUri": URI})
    (build,) = aws.started
    assert (build["projectName"], build["idempotencyToken"]) == ("project", "request-1")
    assert aws.tags == {"arm64-old", PROPERTIES["Tag"]}


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_an_image_that_is_there_is_not_built_again(respond, kind):
    aws = FakeAws()
    aws.tags.add(PROPERTIES["Tag"])
    answer = respond(aws, request(kind, PhysicalResourceId="repository"))
    assert (answer["Status"], answer["Data"]) == ("SUCCESS", {"ImageUri": URI})
    assert aws.started == []


def test_failed_build_fails_the_deployment_with_the_end_of_its_log(respond):
    aws = FakeAws("IN_PROGRESS", "FAILED")
    aws.log = [f"line {n}" for n in range(1000)] + ["ERROR: no matching distribution for numpy==0"]
    answer = respond(aws, request("Create"))
    assert answer["Status"] == "FAILED"
    first, phase, *lines = answer["Reason"].splitlines()
    assert first == "The build project:1 ended as FAILED."
    assert phase == "BUILD: exit status 1"
    assert lines[0] == "The end of its log (group, stream):"
    assert lines[-1] == "ERROR: no matching distribution for numpy==0"
    assert "line 0" not in lines


def test_long_log_keeps_what_happened_and_its_last_line(respond):
    aws = FakeAws("FAILED")
    aws.log = ["ä" * 3000, "\x1b[31m" * 500, '"quoted"\\' * 300, "the last line"]
    reason = respond(aws, request("Create"))["Reason"]
    assert reason.startswith("The build project:1 ended as FAILED.")
    assert reason.endswith("the last line")


@pytest.mark.parametrize("state", ["FAULT", "STOPPED", "TIMED_OUT"])
def test_every_other_end_of_a_build_is_a_failure(respond, state):
    answer = respond(FakeAws("IN_PROGRESS", state), request("Create"))
    assert answer["Status"] == "FAILED"
    assert f"ended as {state}" in answer["Reason"]


def test_unreadable_log_does_not_hide_the_failure(respond):
    aws = FakeAws("FAILED")
    aws.log_error = "AccessDeniedException"
    reason = respond(aws, request("Create"))["Reason"]
    assert "BUILD: exit status 1" in reason
    assert "AccessDeniedException" in reason


def test_build_that_takes_too_long_is_stopped_and_answered_in_time(respond):
    aws = FakeAws(*["IN_PROGRESS"] * 1000)
    answer = respond(aws, request("Create"))
    assert answer["Status"] == "FAILED"
    assert "did not finish in time and was stopped" in answer["Reason"]
    assert aws.stopped == ["project:1"]
    assert aws.seconds_left > 20  # left to answer


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        ("start_build", ["AccountLimitExceededException", "kennel image push"]),
        ("describe_images", ["AccountLimitExceededException", "/the/log"]),
    ],
)
def test_a_refused_call_is_answered_with_its_reason_and_a_way_on(respond, call, parts):
    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccountLimitExceededException", "Message": "0 builds"}}, call)

    aws = FakeAws()
    setattr(aws, call, refuse)
    answer = respond(aws, request("Create"))
    assert answer["Status"] == "FAILED"
    assert all(part in answer["Reason"] for part in parts)


@pytest.mark.parametrize("physical_id", ["repository", "what a request left that failed early"])
def test_deleting_does_nothing_and_succeeds(respond, physical_id):
    aws = FakeAws()
    answer = respond(aws, request("Delete", PhysicalResourceId=physical_id))
    assert (answer["Status"], answer["PhysicalResourceId"]) == ("SUCCESS", physical_id)
    assert (aws.started, aws.stopped) == ([], [])


def test_another_image_is_not_another_resource(respond):
    created = respond(FakeAws("SUCCEEDED"), request("Create"))["PhysicalResourceId"]
    changed = PROPERTIES | {"Tag": "arm64-new"}
    event = request("Update", PhysicalResourceId=created, ResourceProperties=changed)
    assert respond(FakeAws("SUCCEEDED"), event)["PhysicalResourceId"] == created


@given(st.text(max_size=6000))
def test_no_reason_is_too_long_for_cloudformation(reason):
    body = image_build.answer(request("Create"), reason)
    assert len(body) <= image_build.MAX_ANSWER_BYTES
    assert json.loads(body)["Status"] == ("FAILED" if reason else "SUCCESS")
