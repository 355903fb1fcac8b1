"""The function that builds the serving image, with fakes of CodeBuild, ECR and the logs; and the image's tag."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from infra.serving_image import SOURCES, image_tag
from infra.settings import ROOT
from programs.image_build import image_build

PROPERTIES = {
    "ProjectName": "project",
    "RepositoryName": "repository",
    "RepositoryUri": "111122223333.dkr.ecr.us-east-1.amazonaws.com/repository",
    "Tag": "arm64-0123456789abcdef",
}
BUILT = ("SUCCESS", {"ImageUri": f"{PROPERTIES['RepositoryUri']}:{PROPERTIES['Tag']}"})


def request(kind: str, **more: str) -> dict[str, Any]:
    ids = {name: name for name in ("StackId", "RequestId", "LogicalResourceId", "ResponseURL")}
    return {"RequestType": kind, **ids, "ResourceProperties": PROPERTIES, **more}


def build(status: str) -> dict[str, Any]:
    contexts = [{"message": "exit status 1"}] if status == "FAILED" else []
    return {
        "id": "project:1",
        "buildStatus": status,
        "phases": [{"phaseType": "SUBMITTED"}, {"phaseType": "BUILD", "contexts": contexts}],
        "logs": {"groupName": "group", "streamName": "stream"} if status != "FAULT" else {},
    }


class FakeAws(Mock):
    """CodeBuild with a build that goes through the given states, ECR without images, and the log of a build."""

    def goes_through(self, *states: str) -> None:
        first, *others = ({"build": build(state), "builds": [build(state)]} for state in states)
        self.start_build.return_value = first
        self.batch_get_builds.side_effect = others
        self.exceptions.ImageNotFoundException = LookupError
        self.describe_images.side_effect = LookupError
        log = [{"message": f"line {n}\n"} for n in range(1000)] + [{"message": "ERROR: no numpy==0"}]
        self.get_log_events.side_effect = lambda *, limit, **stream: {"events": log[-limit:]}

    def refuses(self, operation: str) -> None:
        error = {"Error": {"Code": "AccountLimitExceededException", "Message": "0 builds"}}
        getattr(self, operation).side_effect = ClientError(error, operation)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> FakeAws:
    aws = FakeAws(seconds_left=900.0)
    monkeypatch.setattr(image_build.boto3, "client", lambda service: aws)
    monkeypatch.setattr(image_build, "_send", aws.send)
    passes = SimpleNamespace(sleep=lambda seconds: setattr(aws, "seconds_left", aws.seconds_left - seconds))
    monkeypatch.setattr(image_build, "time", passes)
    return aws


def respond(aws: FakeAws, event: dict[str, Any]) -> dict[str, Any]:
    """Call the handler; returns what CloudFormation is told."""
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: aws.seconds_left * 1000, log_group_name="/the/log")
    image_build.handler(event, context)
    ((url, body),) = (call.args for call in aws.send.call_args_list)
    answer = json.loads(body)
    ids = ("StackId", "RequestId", "LogicalResourceId")
    assert [url, *(answer[name] for name in ids)] == ["ResponseURL", *ids]
    return answer


def test_a_missing_image_is_built_once_and_its_address_returned(aws: FakeAws) -> None:
    aws.goes_through("IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED")
    answer = respond(aws, request("Create"))
    assert (answer["Status"], answer["Data"]) == BUILT
    aws.start_build.assert_called_once_with(
        projectName="project",
        environmentVariablesOverride=[{"name": "IMAGE_TAG", "value": PROPERTIES["Tag"], "type": "PLAINTEXT"}],
        idempotencyToken="RequestId",
    )
    assert answer["PhysicalResourceId"] == "repository"  # whatever the image: another one is not another resource


def test_a_failed_build_fails_the_deployment_with_the_end_of_its_log(aws: FakeAws) -> None:
    aws.goes_through("IN_PROGRESS", "FAILED")
    answer = respond(aws, request("Create"))
    assert answer["Status"] == "FAILED"
    assert answer["Reason"].startswith(
        "The build project:1 ended as FAILED.\nBUILD: exit status 1\nThe end of its log (group, stream):\nline"
    )
    assert answer["Reason"].endswith("line 999\nERROR: no numpy==0")
    assert "line 0\n" not in answer["Reason"]


def test_a_build_that_takes_too_long_is_stopped_and_answered_in_time(aws: FakeAws) -> None:
    aws.goes_through(*["IN_PROGRESS"] * 1000)
    answer = respond(aws, request("Create"))
    assert answer["Status"] == "FAILED"
    assert "did not finish in time and was stopped" in answer["Reason"]
    aws.stop_build.assert_called_once_with(id="project:1")
    assert aws.seconds_left > 20  # left to answer


@pytest.mark.parametrize(
    ("state", "refused", "parts"),
    [
        ("FAULT", "nothing", ["ended as FAULT", "(empty)"]),
        ("FAILED", "get_log_events", ["BUILD: exit status 1", "cannot be read"]),
        ("IN_PROGRESS", "start_build", ["AccountLimitExceededException", "kennel image push"]),
        ("IN_PROGRESS", "describe_images", ["AccountLimitExceededException", "/the/log"]),
    ],
)
def test_every_other_end_is_a_failure_with_its_reason(aws: FakeAws, state: str, refused: str, parts: list[str]) -> None:
    aws.goes_through(state)
    aws.refuses(refused)
    answer = respond(aws, request("Create"))
    assert answer["Status"] == "FAILED"
    assert [part for part in parts if part not in answer["Reason"]] == []


def test_deleting_does_nothing_and_succeeds(aws: FakeAws) -> None:
    answer = respond(aws, request("Delete", PhysicalResourceId="what a request left that failed early"))
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


def test_a_reason_of_a_megabyte_is_cut_at_once() -> None:
    began = time.process_time()
    assert json.loads(image_build.answer(request("Create"), "x" * 1_000_000 + "end"))["Reason"].endswith("end")
    assert time.process_time() - began < 2


@pytest.mark.parametrize("file", [*SOURCES, "serving/server.py"])
def test_another_content_of_the_image_and_nothing_else_is_another_tag(tmp_path: Path, file: str) -> None:
    for source in SOURCES:
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "model" / source, tmp_path / source)
    with (tmp_path / file).open("a", encoding="utf-8") as written:
        written.write("\n")
    before, after = image_tag(ROOT / "model", "arm64"), image_tag(tmp_path, "arm64")
    assert before.startswith("arm64-")
    assert (before != after) == (file in SOURCES)
