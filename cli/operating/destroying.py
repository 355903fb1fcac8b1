"""`kennel destroy`: everything of a stage that costs, in the order in which AWS lets go of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Any

import typer

from cli.aws import Stage, announce, delete_objects
from cli.batch.job import LOG_GROUP as TRANSFORM_LOGS
from cli.console import ask, console, error_console, progress_bar
from cli.errors import KennelError, NotReadyError, WorkFailedError, aws_errors
from cli.operating.deploying import StackKind
from cli.operating.log_retention import ENDPOINT_LOGS
from cli.operating.stopping import stop_jobs
from cli.prices import IMAGES_USD_PER_GB_MONTH, KEY_USD_PER_MONTH, LOGS_USD_PER_GB_MONTH, S3_USD_PER_GB_MONTH
from cli.training.ec2_instances import terminate_instances
from cli.training.job_names import job_prefixes
from cli.training.sagemaker import LOG_GROUP as TRAINING_LOGS

_POLL_SECONDS = 5.0
_STACK_SECONDS = 60 * 60
_LATE_LOGS_SECONDS = 10 * 60  # S3 goes on delivering access logs, for hours in the worst case
_LATE_LOGS_PAUSE = 30.0


def destroy(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove all that costs.

    Stops searches, trainings and batches, destroys the stacks, empties the buckets unless the stage retains them,
    deletes logs.
    """
    stage: Stage = context.obj
    announce(stage)
    retain = stage.settings.storage.retain
    if not yes:
        what = "The data bucket is kept." if retain else "The data bucket goes too, with all that is in it."
        ask(f"Destroy the stage {stage.name} in {stage.place}? {what}")
    destroy_stage(stage)
    if retain:
        _tell_what_is_retained(stage)
    else:
        console.print(f"Nothing of the stage {stage.name!r} is left in {stage.place}.")
    console.print(
        "The CDK's own bootstrap stack (CDKToolkit) is shared by all CDK apps of the account and stays; its bucket "
        "holds the artifacts that were deployed."
    )


@dataclass
class _Steps:
    """Steps that are all tried; `failures` says what went wrong, `removed` how many things went."""

    failures: list[str] = field(default_factory=list)
    removed: int = 0

    def attempt(self, what: str, step: Callable[[], int]) -> bool:
        """Try a step that returns how many things it removed; return whether it succeeded."""
        try:
            with aws_errors():
                self.removed += step()
        except KennelError as error:
            self.failures.append(f"{what}: {error} {error.hint}".rstrip())
            error_console.print(f"failed: {self.failures[-1]}")
            return False
        return True


def destroy_stage(stage: Stage) -> None:
    """Stop the stage's jobs, destroy its stacks, empty its buckets, delete the logs that SageMaker made.

    A step that fails keeps back only those that would fail because of it. A storage stack that is retained is not
    touched: AWS would refuse.
    """
    steps, endpoints = _Steps(), list[str]()

    def list_endpoints() -> int:
        endpoints.extend(_endpoints(stage))  # now: their logs are deleted when they are gone
        return 0

    steps.attempt("Listing the endpoints", list_endpoints)
    stopped = steps.attempt("Stopping the jobs", lambda: stop_jobs(stage))
    stopped &= steps.attempt("Terminating the training instances", lambda: terminate_instances(stage))
    free = steps.attempt("Inference stack", lambda: _delete_stack(stage, "inference"))
    free &= steps.attempt("Endpoints without a stack", lambda: _delete_endpoints(stage))
    if stopped:  # else a job would lose its role, or an instance its network
        free &= steps.attempt("Training stack", lambda: _delete_stack(stage, "training"))
    if stage.settings.storage.retain:
        steps.removed += stage.find_stack(stage.stack_name("storage")) is not None
    elif free and stopped:  # else what is left would lose its data, and CloudFormation refuse in the end
        steps.attempt("Storage stack", lambda: _delete_storage(stage))
    steps.attempt("Logs", lambda: _delete_logs(stage, endpoints))
    if steps.failures:
        raise WorkFailedError(
            "\n  ".join([f"{len(steps.failures)} step(s) of destroying {stage.name} failed:", *steps.failures]),
            f"What is left may cost. Once the cause is gone: {stage.kennel} destroy",
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
    started = time.monotonic()
    stage.client("cloudformation").delete_stack(StackName=identity)
    with progress_bar(f"Deleting {name}") as report:
        while True:
            found = stage.find_stack(identity)  # by its id, under which it is found when it is gone, too
            if found is None or found["StackStatus"] == "DELETE_COMPLETE":
                return 1
            if found["StackStatus"] == "DELETE_FAILED":
                raise WorkFailedError(f"{name} was not deleted: {_reasons(stage, identity)}")
            if time.monotonic() - started > _STACK_SECONDS:
                raise WorkFailedError(f"{name} is still {found['StackStatus']} after an hour.")
            report(0)
            time.sleep(_POLL_SECONDS)


def _reasons(stage: Stage, stack_id: str) -> str:
    """Say why the newest deletion of a stack has failed."""
    reasons = []
    events = stage.client("cloudformation").describe_stack_events(StackName=stack_id)["StackEvents"]
    for event in events:  # the newest first
        if event["ResourceStatus"] == "DELETE_IN_PROGRESS" and event.get("PhysicalResourceId") == stack_id:
            break
        if event["ResourceStatus"] == "DELETE_FAILED" and event.get("PhysicalResourceId") != stack_id:
            reasons.append(f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', 'no reason given')}")
    return "; ".join(reasons) or "CloudFormation gives no reason"


def _endpoints(stage: Stage) -> list[str]:
    """Return the names of the endpoints that carry the stage's tags, whether or not a stack knows them."""
    sagemaker, wanted = stage.client("sagemaker"), {"project": stage.settings.project, "stage": stage.name}
    names = []
    for endpoint in stage.listed("sagemaker", "list_endpoints", "Endpoints"):
        tags = sagemaker.list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"]
        if wanted.items() <= {tag["Key"]: tag["Value"] for tag in tags}.items():
            names.append(endpoint["EndpointName"])
    return names


def _delete_endpoints(stage: Stage) -> int:
    """Delete the endpoints that the inference stack has left; there are some when it was deleted without them."""
    left = _endpoints(stage)
    for name in left:
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
        try:
            return _delete_stack(stage, "storage")
        except WorkFailedError as error:
            if not any(page for bucket in _resources(stage, "AWS::S3::Bucket") for page in _versions(stage, bucket)):
                raise
            if time.monotonic() > deadline:
                hint = "Access logs still arrive. They do so for some hours at most: kennel destroy again then."
                raise WorkFailedError(str(error), hint) from error
            console.print(f"Access logs have arrived meanwhile: once more in {_LATE_LOGS_PAUSE:.0f} s")
            time.sleep(_LATE_LOGS_PAUSE)


def _resources(stage: Stage, resource_type: str) -> list[str]:
    """Return what the storage stack holds of a type."""
    if stage.find_stack(name := stage.stack_name("storage")) is None:
        return []
    return [
        resource["PhysicalResourceId"]
        for resource in stage.client("cloudformation").describe_stack_resources(StackName=name)["StackResources"]
        if resource["ResourceType"] == resource_type
        and resource["ResourceStatus"] != "DELETE_COMPLETE"
        and resource.get("PhysicalResourceId")
    ]


def _empty_buckets(stage: Stage) -> None:
    """Delete every version and every part of an upload; what is written meanwhile is not caught."""
    s3, buckets = stage.client("s3"), _resources(stage, "AWS::S3::Bucket")
    present = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    buckets = [bucket for bucket in buckets if bucket in present]  # one may have been deleted by hand
    for bucket in buckets:
        s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={})
    for bucket in buckets:
        console.print(f"Emptying the bucket {bucket}")
        for page in _versions(stage, bucket):
            delete_objects(s3, bucket, [{"Key": found["Key"], "VersionId": found["VersionId"]} for found in page])
        for upload in stage.listed("s3", "list_multipart_uploads", "Uploads", Bucket=bucket):
            s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def _versions(stage: Stage, bucket: str) -> Iterator[list[dict[str, Any]]]:
    """Yield every version and delete marker, a page at a time."""
    for page in stage.client("s3").get_paginator("list_object_versions").paginate(Bucket=bucket):
        yield page.get("Versions", []) + page.get("DeleteMarkers", [])


def _delete_logs(stage: Stage, endpoints: list[str]) -> int:
    """Delete what no stack removes: SageMaker's own log groups, and those that an earlier deployment has retained."""
    logs, removed = stage.client("logs"), 0
    groups = [group for name in endpoints for group in _log_groups(stage, f"{ENDPOINT_LOGS}/{name}")]
    if not stage.settings.storage.retain:
        groups += _stack_log_groups(stage)
    for group in groups:
        logs.delete_log_group(logGroupName=group["logGroupName"])
    for shared, prefix in product((TRAINING_LOGS, TRANSFORM_LOGS), job_prefixes(stage)):
        if not _log_groups(stage, shared):
            continue  # no job of any stage has logged in this account
        named = {"logGroupName": shared, "logStreamNamePrefix": prefix}
        for stream in list(stage.listed("logs", "describe_log_streams", "logStreams", **named)):
            logs.delete_log_stream(logGroupName=shared, logStreamName=stream["logStreamName"])
            removed += 1
    return removed + len(groups)


def _log_groups(stage: Stage, prefix: str) -> list[dict[str, Any]]:
    return list(stage.listed("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=prefix))


def _stack_log_groups(stage: Stage) -> list[dict[str, Any]]:
    """Return the log groups that CloudFormation has named after the stage's stacks."""
    return [group for kind in StackKind for group in _log_groups(stage, f"{stage.stack_name(kind)}-")]


def _tell_what_is_retained(stage: Stage) -> None:
    """List what a stage that retains its data keeps, with what each costs, and how to get rid of it."""
    console.print(f"The stage {stage.name!r} retains its data. What is left in {stage.place}:")
    with aws_errors():
        for bucket in _resources(stage, "AWS::S3::Bucket"):
            size = sum(found.get("Size", 0) for page in _versions(stage, bucket) for found in page)
            _tell_cost(f"bucket {bucket}", size, S3_USD_PER_GB_MONTH)
        for repository in _resources(stage, "AWS::ECR::Repository"):
            images = stage.listed("ecr", "describe_images", "imageDetails", repositoryName=repository)
            size = sum(image["imageSizeInBytes"] for image in images)
            _tell_cost(f"image repository {repository}", size, IMAGES_USD_PER_GB_MONTH)
        for group in _stack_log_groups(stage):
            _tell_cost(f"log group {group['logGroupName']}", group.get("storedBytes", 0), LOGS_USD_PER_GB_MONTH)
        for key in _resources(stage, "AWS::KMS::Key"):
            console.print(f"  key {key}: at most {KEY_USD_PER_MONTH:.2f} USD a month")
    console.print(
        f"To remove that for good, too: set retain = false under [storage] in {stage.settings_file}, then "
        f"{stage.kennel} deploy storage, which lifts the protection, and {stage.kennel} destroy.",
    )


def _tell_cost(what: str, size: int, usd_per_gigabyte: float) -> None:
    cost = f"{size / 1e9 * usd_per_gigabyte:.2f} USD a month"
    console.print(f"  {what}, {size / 1e9:.3f} GB: at most {cost}")
