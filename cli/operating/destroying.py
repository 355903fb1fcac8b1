"""`kennel destroy`: everything of a stage that costs, in the order in which AWS lets go of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

import botocore.exceptions
import typer

from cli.aws import Stage, announce, delete_objects
from cli.batch.job import LOG_GROUP as TRANSFORM_LOGS
from cli.console import AsJson, Yes, ask, console, error_console, progress_bar, show
from cli.errors import KennelError, NotReadyError, WorkFailedError, aws_errors, goes_on
from cli.models.registry import delete_versions
from cli.operating.deploying import StackKind
from cli.operating.endpoints import stage_endpoints
from cli.operating.leftovers import Leftover, find_leftovers, log_groups
from cli.operating.log_retention import ENDPOINT_LOGS
from cli.operating.stopping import stop_jobs
from cli.training.ec2_instances import terminate_instances
from cli.training.job_names import job_prefixes
from cli.training.sagemaker import LOG_GROUP as TRAINING_LOGS

_ONE_HOUR = {"Delay": 5, "MaxAttempts": 720}
_LATE_LOGS_SECONDS = 10 * 60  # S3 goes on delivering access logs, for hours in the worst case
_LATE_LOGS_PAUSE = 30.0
_BUCKET = "AWS::S3::Bucket"


def destroy(context: typer.Context, yes: Yes = False, as_json: AsJson = False) -> None:
    """Stop and remove all of the stage that costs; say what is left."""
    stage: Stage = context.obj
    announce(stage)
    retain = stage.settings.storage.retain
    what = "The data bucket is kept." if retain else "The data bucket goes too, with all that is in it."
    ask(f"Destroy the stage {stage.name} in {stage.place}? {what}", yes=yes)
    begun = "What was begun goes on, CloudFormation deletes. What is left is billed"
    with goes_on(f"{begun}: {stage.kennel} cost. Go on with it: {stage.kennel} destroy"):
        destroy_stage(stage)
    console.print(
        "The CDK's own bootstrap stack (CDKToolkit) is shared by all CDK apps of the account and stays; its bucket "
        "holds the artifacts that were deployed."
    )


@dataclass
class _Steps:
    """Steps that are all tried; `failures` says what went wrong, `removed` how many things went."""

    stage: Stage
    failures: list[str] = field(default_factory=list)
    removed: int = 0

    def attempt(self, what: str, step: Callable[..., int], *arguments: Any) -> bool:
        """Try a step that returns how many things of the stage it removed; return whether it succeeded."""
        try:
            with aws_errors():
                self.removed += step(self.stage, *arguments)
        except KennelError as error:
            self.failures.append(f"{what}: {error} {error.hint}".rstrip())
            error_console.print(f"failed: {self.failures[-1]}")
            return False
        return True


def destroy_stage(stage: Stage) -> None:
    """Stop the stage's jobs, destroy its stacks (not a storage stack that is retained), empty its buckets, delete logs.

    At the end it looks for what is left, and says what that costs.
    A step that fails keeps back only those that would fail because of it.
    """
    steps = _Steps(stage)
    stopped = steps.attempt("Stopping the jobs", stop_jobs)
    stopped &= steps.attempt("Terminating the training instances", terminate_instances)
    free = steps.attempt("Inference stack", _delete_stack, "inference")
    free &= steps.attempt("Endpoints without a stack", _delete_endpoints)
    if stopped:  # else a job would lose its role, or an instance its network
        free &= steps.attempt("Training stack", _delete_stack, "training")
    if stage.settings.storage.retain:
        steps.removed += stage.find_stack(stage.stack_name("storage")) is not None
    elif free and stopped:  # else what is left would lose its data, and CloudFormation refuse in the end
        steps.attempt("Storage stack", _delete_storage)
    with progress_bar("Deleting logs"):
        steps.attempt("Logs", _delete_logs)
    searched = steps.attempt("Looking for what is left", _list_leftovers, left := list[Leftover]())
    if searched and (left or steps.removed):
        _tell(stage, left)
    if steps.failures:
        raise WorkFailedError(
            "\n  ".join([f"{len(steps.failures)} step(s) of destroying {stage.name} failed:", *steps.failures]),
            f"What is left may cost. Once the cause is gone: {stage.kennel} destroy",
        )
    if costly := [each.what for each in left if not each.kept]:
        raise WorkFailedError(
            f"{len(costly)} thing(s) of {stage.name} are left that cost: {', '.join(costly)}.",
            f"Once more: {stage.kennel} destroy. What stays then belongs to no stack: delete it in the AWS console.",
        )
    if not steps.removed:
        raise NotReadyError(
            f"There is nothing of the stage {stage.name!r} in {stage.place}: nothing was destroyed.",
            "Is it in another region or account? Name that: AWS_REGION and AWS_DEFAULT_REGION, AWS_PROFILE.",
        )


def _delete_stack(stage: Stage, kind: str) -> int:
    """Delete a stack, also one whose deletion has failed before; return 0 when there is none."""
    stack = stage.find_stack(stage.stack_name(kind))
    if stack is None:
        return 0
    name, identity = stack["StackName"], stack["StackId"]
    console.print(f"Deleting the stack {name}")
    cloudformation = stage.client("cloudformation")
    cloudformation.delete_stack(StackName=identity)
    with progress_bar(f"Deleting {name}"):
        try:  # by its id, under which it is found when it is gone, too
            cloudformation.get_waiter("stack_delete_complete").wait(StackName=identity, WaiterConfig=_ONE_HOUR)
        except botocore.exceptions.WaiterError as error:
            found = (error.last_response.get("Stacks") or [{}])[0]  # none in a refusal
            ended = found.get("StackStatus") != "DELETE_IN_PROGRESS"  # else its reason is why it was begun
            reason = (ended and found.get("StackStatusReason")) or error
            events = f"aws cloudformation describe-stack-events --stack-name {name}"
            raise WorkFailedError(f"{name} was not deleted: {reason}", f"More of it: {events}") from error
    return 1


def _delete_endpoints(stage: Stage) -> int:
    """Delete the endpoints that the inference stack has left; there are some when it was deleted without them."""
    for name in (left := stage_endpoints(stage)):
        console.print(f"Deleting the endpoint {name}, which no stack knows")
        stage.client("sagemaker").delete_endpoint(EndpointName=name)
    return len(left)


def _delete_storage(stage: Stage) -> int:
    """Empty the buckets and delete their stack, again while access logs arrive in between."""
    deadline = time.monotonic() + _LATE_LOGS_SECONDS
    if (stage.find_stack(name := stage.stack_name("storage")) or {}).get("EnableTerminationProtection"):
        raise NotReadyError(
            f"{name} is protected against deletion.", f"Deploy it as the settings say: {stage.kennel} deploy storage"
        )
    while True:
        _empty_buckets(stage)
        delete_versions(stage)
        try:
            return _delete_stack(stage, "storage")
        except WorkFailedError as error:
            if not any(page for bucket in _stored(stage, _BUCKET) for page in _versions(stage, bucket)):
                raise
            if time.monotonic() > deadline:
                hint = f"Access logs still arrive, for some hours at most: kennel destroy again then. {error.hint}"
                raise WorkFailedError(str(error), hint) from error
            console.print(f"Access logs have arrived meanwhile: once more in {_LATE_LOGS_PAUSE:.0f} s")
            time.sleep(_LATE_LOGS_PAUSE)


def _stored(stage: Stage, resource_type: str | None = None) -> list[str]:
    """Return the names of what the storage stack holds, of a type or at all."""
    return [resource["PhysicalResourceId"] for resource in stage.resources("storage", resource_type)]


def _empty_buckets(stage: Stage) -> None:
    """Delete every version and every part of an upload; what is written meanwhile is not caught."""
    s3, buckets = stage.client("s3"), _stored(stage, _BUCKET)
    present = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    buckets = [bucket for bucket in buckets if bucket in present]  # one may have been deleted by hand
    for bucket in buckets:
        s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={})
    for bucket in buckets:
        console.print(f"Emptying the bucket {bucket}")
        deleted = 0
        with progress_bar(f"Emptying {bucket}") as report:
            for page in _versions(stage, bucket):
                delete_objects(s3, bucket, [{"Key": found["Key"], "VersionId": found["VersionId"]} for found in page])
                report(deleted := deleted + len(page))
        for upload in stage.listed("s3", "list_multipart_uploads", "Uploads", Bucket=bucket):
            s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def _versions(stage: Stage, bucket: str) -> Iterator[list[dict[str, Any]]]:
    for page in stage.client("s3").get_paginator("list_object_versions").paginate(Bucket=bucket):
        yield page.get("Versions", []) + page.get("DeleteMarkers", [])


def _delete_logs(stage: Stage) -> int:
    """Delete what no stack removes: SageMaker's own log groups, and those that an earlier deployment has retained."""
    logs, removed = stage.client("logs"), 0
    groups = log_groups(stage, f"{ENDPOINT_LOGS}/{stage.settings.project}-{stage.name}-")
    if not stage.settings.storage.retain:
        groups += _stack_log_groups(stage)
    for group in groups:
        logs.delete_log_group(logGroupName=group)
    for shared, prefix in product((TRAINING_LOGS, TRANSFORM_LOGS), job_prefixes(stage)):
        if not log_groups(stage, shared):
            continue  # no job of any stage has logged in this account
        named = {"logGroupName": shared, "logStreamNamePrefix": prefix}
        for stream in list(stage.listed("logs", "describe_log_streams", "logStreams", **named)):
            logs.delete_log_stream(logGroupName=shared, logStreamName=stream["logStreamName"])
            removed += 1
    return removed + len(groups)


def _stack_log_groups(stage: Stage) -> list[str]:
    """Return the log groups that CloudFormation has named after the stage's stacks."""
    return [group for kind in StackKind for group in log_groups(stage, f"{stage.stack_name(kind)}-")]


def _list_leftovers(stage: Stage, left: list[Leftover]) -> int:
    """Append what is left of the stage and costs; nothing is removed."""
    retained = stage.settings.storage.retain
    left += find_leftovers(stage, {*_stored(stage), *_stack_log_groups(stage)} if retained else ())
    return 0


def _tell(stage: Stage, left: Sequence[Leftover]) -> None:
    which = f"of the stage {stage.name!r}"
    lines = [f"  {each.what}: {each.price}{', kept as the settings say' if each.kept else ''}" for each in left]
    heading = f"Left {which} in {stage.place}:" if left else f"Nothing {which} is left in {stage.place}."
    show({"left": [asdict(each) for each in left]}, heading, *lines)
    if any(each.kept for each in left):
        console.print(
            f"To remove that for good, too: set retain = false under [storage] in {stage.settings_file}, then "
            f"{stage.kennel} deploy storage, which lifts the protection, and {stage.kennel} destroy.",
        )
