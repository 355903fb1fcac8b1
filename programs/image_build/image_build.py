"""Builds a container image with CodeBuild while CloudFormation waits: the function behind `Custom::ContainerImage`.

An image whose tag is in the repository already is not built again: the tag stands for its contents. A build that fails
or takes too long fails the deployment, with the end of the build's log as the reason. Deleting does nothing, because
the repository deletes its images itself. Runs in Lambda with what is there: the standard library and boto3.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import boto3
from botocore.exceptions import ClientError

POLL_SECONDS = 5
# Enough to stop the build, to read its log and to answer CloudFormation before Lambda ends the function.
RESERVE_SECONDS = 30
LOG_LINES = 40
# CloudFormation takes no longer answer (user guide, "Custom resource response objects").
MAX_ANSWER_BYTES = 4096
# What happened comes first and stays; of the log behind it the end does.
_KEPT_HEAD = 300

WAY_OUT = "To build the image on another machine: kennel image push. Then deploy again: nothing is left to build."

logger = logging.getLogger(__name__)


class BuildError(Exception):
    """The image could not be built; the message says why and holds the end of the log."""


def ensure_image(project: str, repository: str, tag: str, token: str, remaining_seconds: Callable[[], float]) -> None:
    """Build the image unless the repository has it; the project reads its tag in the variable ``IMAGE_TAG``.

    The token makes CodeBuild take a repeated request for the first one: Lambda calls again after a crash.
    """
    ecr, codebuild = boto3.client("ecr"), boto3.client("codebuild")
    with contextlib.suppress(ecr.exceptions.ImageNotFoundException):
        if ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])["imageDetails"]:
            logger.info("The image is there already: %s:%s", repository, tag)
            return
    variable = {"name": "IMAGE_TAG", "value": tag, "type": "PLAINTEXT"}
    try:
        build = codebuild.start_build(
            projectName=project, environmentVariablesOverride=[variable], idempotencyToken=token
        )["build"]
    except ClientError as error:  # new accounts may have a quota of no builds at all
        raise BuildError(f"CodeBuild does not build: {error}. {WAY_OUT}") from error
    logger.info("Building %s:%s as %s", repository, tag, build["id"])
    while build["buildStatus"] == "IN_PROGRESS":
        if remaining_seconds() < RESERVE_SECONDS + POLL_SECONDS:
            codebuild.stop_build(id=build["id"])
            raise BuildError(_report(build, "did not finish in time and was stopped"))
        time.sleep(POLL_SECONDS)
        build = codebuild.batch_get_builds(ids=[build["id"]])["builds"][0]
    if build["buildStatus"] != "SUCCEEDED":
        raise BuildError(_report(build, f"ended as {build['buildStatus']}"))


def _report(build: dict[str, Any], outcome: str) -> str:
    """Say what became of a build: what each phase that failed says, then the end of the log."""
    phases = [
        f"{phase['phaseType']}: {context['message']}"
        for phase in build.get("phases", ())
        for context in phase.get("contexts", ())
        if context.get("message")
    ]
    place, lines = build.get("logs", {}), ["(empty)"]
    if "streamName" in place:  # else the build failed before it could write any
        stream = {"logGroupName": place["groupName"], "logStreamName": place["streamName"]}
        try:
            page = boto3.client("logs").get_log_events(**stream, limit=LOG_LINES, startFromHead=False)
            lines = [event["message"].rstrip() for event in page["events"]] or lines
        except ClientError as error:  # must not hide why the build failed
            lines = [f"(cannot be read: {error})"]
    log = f"The end of its log ({place.get('groupName')}, {place.get('streamName')}):"
    return "\n".join([f"The build {build['id']} {outcome}.", *phases, log, *lines])


def handler(event: dict[str, Any], context: Any) -> None:
    """Answer one request of CloudFormation, whatever happens: unanswered, it would wait until its own time-out."""
    properties = event["ResourceProperties"]
    reason = ""
    try:
        if event["RequestType"] != "Delete":
            image = (properties["ProjectName"], properties["RepositoryName"], properties["Tag"])
            ensure_image(*image, event["RequestId"], lambda: context.get_remaining_time_in_millis() / 1000)
    except BuildError as error:
        reason = str(error)
        logger.error("%s", reason)
    except Exception as error:
        reason = f"{type(error).__name__}: {error} (log group {context.log_group_name})"
        logger.exception("The image could not be built")
    _send(event["ResponseURL"], answer(event, reason))


def answer(event: dict[str, Any], failure: str = "") -> bytes:
    """Return what CloudFormation is told, never more than it takes; no failure is a success."""
    properties = event["ResourceProperties"]
    document = {
        "Status": "FAILED" if failure else "SUCCESS",
        # Never changes: another image is an update of this resource, not another one to be deleted afterwards.
        "PhysicalResourceId": event.get("PhysicalResourceId") or properties["RepositoryName"],
        **{name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
        "Data": {"ImageUri": f"{properties['RepositoryUri']}:{properties['Tag']}"},
    }
    if len(failure) > _KEPT_HEAD + MAX_ANSWER_BYTES:  # at once what is certainly too much
        failure = failure[:_KEPT_HEAD] + failure[-MAX_ANSWER_BYTES:]
    reason = failure
    while len(body := json.dumps(document | {"Reason": reason}, ensure_ascii=False).encode()) > MAX_ANSWER_BYTES:
        failure = failure[:_KEPT_HEAD] + failure[_KEPT_HEAD + 100 :]
        reason = f"{failure[:_KEPT_HEAD]}\n[…]\n{failure[_KEPT_HEAD:]}"
    return body


def _send(url: str, body: bytes) -> None:
    # The address is signed for a request without a content type; urllib would add one.
    request = urllib.request.Request(url, data=body, method="PUT", headers={"Content-Type": ""})  # noqa: S310 - CloudFormation's
    with urllib.request.urlopen(request, timeout=20):  # noqa: S310
        pass
