"""`kennel deploy` and `kennel destroy`: the CDK app's stacks, and what CloudFormation itself cannot see or remove."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import botocore.exceptions
import typer

from cli.aws import Stage, delete_objects
from cli.batch_job import LOG_GROUP as TRANSFORM_LOGS
from cli.cdk import run_cdk
from cli.console import console
from cli.ec2_instances import terminate_instances
from cli.errors import NotReadyError, WorkFailedError, aws_errors
from cli.log_retention import limit_logs
from cli.prices import LAMBDA_USD_PER_GB_SECOND, PROVISIONED_USD_PER_GB_SECOND, hourly_price
from cli.stage_jobs import job_prefix, tuning_prefix
from cli.training import LOG_GROUP as TRAINING_LOGS
from cli.tuning_jobs import stop_tuning_jobs


class StackKind(StrEnum):
    """The stacks that can be deployed on their own."""

    STORAGE = "storage"
    TRAINING = "training"
    INFERENCE = "inference"


_BOOTSTRAP_STACK = "CDKToolkit"


def deploy(
    context: typer.Context,
    stacks: Annotated[list[StackKind] | None, typer.Argument(help="Default: all that can be deployed.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask about changes to permissions.")] = False,
) -> None:
    """Deploy the stacks.

    Runs `cdk deploy`; the inference stack follows as soon as there is a model.
    """
    stage: Stage = context.obj
    kinds = [str(kind) for kind in stacks or StackKind]
    waits = "inference" in kinds and not stage.artifact.exists()
    if waits and stacks:
        raise NotReadyError(
            f"There is no model artifact at {stage.artifact}.", "Make one: kennel train, then kennel package"
        )
    if waits:
        kinds.remove("inference")
    deploy_stacks(stage, kinds, ask=not yes)
    console.print(f"Deployed {', '.join(kinds)}.")
    if waits:
        console.print(
            "The inference stack waits for a model artifact: kennel data push, kennel train, kennel package, then "
            "kennel deploy again."
        )
    elif "inference" in kinds:
        console.print(f"The function answers at {stage.output('inference', 'FunctionUrl')}")
        console.print("Try it: kennel classify PICTURE")


def deploy_stacks(
    stage: Stage, kinds: list[str], *, ask: bool = False, log: Path | None = None, artifact: Path | None = None
) -> None:
    """Deploy some of the stages' stacks, bootstrapping the account first where nobody has.

    `artifact` is deployed in place of the one that the stage's settings name.

    Raises
    ------
    WorkFailedError
        When a deployment failed, or succeeded while the endpoint kept serving the model before.
    """
    if not _is_bootstrapped(stage):
        console.print("This account and region have not been prepared for the CDK yet: running cdk bootstrap once.")
        bootstrap(stage, log=log)
    if "inference" in kinds:
        console.print(_cost_of_inference(stage))
    if "training" in kinds and (notebook := stage.settings.notebook):
        price = hourly_price(notebook.instance_type)
        console.print(f"While it runs: notebook {notebook.instance_type} ({price}); it stops itself when idle.")
    approval = ["--require-approval", "broadening" if ask else "never"]
    names = [stage.stack_name(kind) for kind in kinds]
    model = [] if artifact is None else ["-c", f"artifact={artifact}"]
    run_cdk("deploy", *names, "--exclusively", *approval, *model, stage=stage.name, log=log)
    limit_logs(stage, kinds)
    if "inference" in kinds:
        _check_endpoint_follows_stack(stage)


def bootstrap(stage: Stage, *, log: Path | None = None) -> None:
    """Run `cdk bootstrap` for the account and region that the environment names."""
    with aws_errors():
        account = stage.client("sts").get_caller_identity()["Account"]
    run_cdk("bootstrap", f"aws://{account}/{stage.region}", stage=stage.name, log=log)


def _is_bootstrapped(stage: Stage) -> bool:
    return _stack_exists(stage, _BOOTSTRAP_STACK)


def _stack_exists(stage: Stage, name: str) -> bool:
    with aws_errors():
        try:
            stage.client("cloudformation").describe_stacks(StackName=name)
        except botocore.exceptions.ClientError as error:
            if "does not exist" in error.response.get("Error", {}).get("Message", ""):
                return False
            raise
    return True


def _cost_of_inference(stage: Stage) -> str:
    serving, function = stage.settings.serving, stage.settings.function
    gigabytes = function.memory_mb / 1024 * function.provisioned_concurrency
    endpoint = hourly_price(serving.instance_type, serving.initial_instances)
    return (
        f"While deployed: endpoint {serving.initial_instances} × {serving.instance_type} ({endpoint}); provisioned "
        f"concurrency {gigabytes * 3600 * PROVISIONED_USD_PER_GB_SECOND:.4f} USD per hour; each call "
        f"{LAMBDA_USD_PER_GB_SECOND * function.memory_mb / 1024:.7f} USD per second. Stop it all: kennel destroy"
    )


def _check_endpoint_follows_stack(stage: Stage) -> None:
    """A failed endpoint update can be rolled back silently and still look InService: compare, do not trust."""
    with aws_errors():
        resources = stage.client("cloudformation").describe_stack_resources(StackName=stage.stack_name("inference"))
        wanted = next(
            resource["PhysicalResourceId"].rsplit("/", 1)[-1]
            for resource in resources["StackResources"]
            if resource["ResourceType"] == "AWS::SageMaker::EndpointConfig"
        )
        name = stage.output("inference", "EndpointName")
        endpoint = stage.client("sagemaker").describe_endpoint(EndpointName=name)
    if endpoint["EndpointConfigName"].lower() != wanted.lower():
        raise WorkFailedError(
            f"The stack is deployed, but the endpoint {name} still serves {endpoint['EndpointConfigName']} in place of "
            f"{wanted}: {endpoint.get('FailureReason', 'SageMaker gives no reason')}",
            f"Read the containers' log: log group /aws/sagemaker/Endpoints/{name}",
        )


def destroy(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove all that costs.

    Stops searches, trainings and batches, empties the buckets unless the stage retains them, destroys the stacks,
    deletes logs.
    """
    stage: Stage = context.obj
    keeps_data = stage.settings.storage.retain
    if not yes:
        what = "The data bucket is kept." if keeps_data else "The data bucket goes too, with all that is in it."
        typer.confirm(f"Destroy {', '.join(stage.stack_name(kind) for kind in StackKind)}? {what}", abort=True)
    destroy_stage(stage)
    console.print(f"Nothing of the stage {stage.name!r} is left" + (" but its retained data." if keeps_data else "."))
    console.print("The CDK's own bootstrap stack (CDKToolkit) is shared by all CDK apps of the account and stays.")


def destroy_stage(stage: Stage, *, log: Path | None = None) -> None:
    """Stop the stage's jobs, empty its buckets, destroy its stacks, delete the logs SageMaker made.

    Raises
    ------
    WorkFailedError
        When `cdk destroy` failed.
    """
    existing = [kind for kind in StackKind if _stack_exists(stage, stage.stack_name(kind))]
    endpoint = (stage.find_outputs("inference") or {}).get("EndpointName")
    with aws_errors():
        stop_tuning_jobs(stage)  # first: it would start further training jobs
        _stop_jobs(stage, "training")
        _stop_jobs(stage, "transform")
        if "training" in existing:
            terminate_instances(stage)
        if "storage" in existing and not stage.settings.storage.retain:
            _empty_buckets(stage)
    if existing:
        names = [stage.stack_name(kind) for kind in reversed(existing)]
        run_cdk("destroy", *names, "--force", "--exclusively", stage=stage.name, log=log)
    with aws_errors():
        _delete_logs(stage, endpoint)


def _stop_jobs(stage: Stage, kind: Literal["training", "transform"]) -> None:
    sagemaker, member = stage.client("sagemaker"), f"{kind.capitalize()}Job"

    def find(status: str) -> list[str]:
        pages = sagemaker.get_paginator(f"list_{kind}_jobs").paginate(
            NameContains=job_prefix(stage), StatusEquals=status
        )
        return [job[f"{member}Name"] for page in pages for job in page[f"{member}Summaries"]]

    stopping = find("Stopping")
    for job in (running := find("InProgress")):
        console.print(f"Stopping the {kind} job {job}")
        getattr(sagemaker, f"stop_{kind}_job")(**{f"{member}Name": job})
    for job in {*stopping, *running}:  # its role and bucket must outlive it
        waiter = sagemaker.get_waiter(f"{kind}_job_completed_or_stopped")
        waiter.wait(**{f"{member}Name": job}, WaiterConfig={"Delay": 2})


def _empty_buckets(stage: Stage) -> None:
    resources = stage.client("cloudformation").describe_stack_resources(StackName=stage.stack_name("storage"))
    buckets = [
        resource["PhysicalResourceId"]
        for resource in resources["StackResources"]
        if resource["ResourceType"] == "AWS::S3::Bucket" and resource["ResourceStatus"] != "DELETE_COMPLETE"
    ]
    s3 = stage.client("s3")
    for bucket in buckets:
        console.print(f"Emptying the bucket {bucket}")
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            versions = page.get("Versions", []) + page.get("DeleteMarkers", [])
            delete_objects(s3, bucket, [{"Key": found["Key"], "VersionId": found["VersionId"]} for found in versions])


def _delete_logs(stage: Stage, endpoint: str | None) -> None:
    """SageMaker makes these log groups itself, so no stack removes them."""
    logs = stage.client("logs")
    missing = logs.exceptions.ResourceNotFoundException
    if endpoint:
        with suppress(missing):  # it never logged a line
            logs.delete_log_group(logGroupName=f"/aws/sagemaker/Endpoints/{endpoint}")
    prefixes = (job_prefix(stage), tuning_prefix(stage))
    for group, prefix in product((TRAINING_LOGS, TRANSFORM_LOGS), prefixes):
        with suppress(missing):  # no such job has logged in this account
            pages = logs.get_paginator("describe_log_streams").paginate(logGroupName=group, logStreamNamePrefix=prefix)
            for stream in [stream["logStreamName"] for page in pages for stream in page["logStreams"]]:
                logs.delete_log_stream(logGroupName=group, logStreamName=stream)
