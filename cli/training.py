"""`kennel train`: one SageMaker training job, followed until it ends."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import botocore.exceptions
import typer

from cli.aws import ROOT, Stage
from cli.console import console, progress_bar
from cli.data import SAMPLE_DIR, data_set_prefix
from cli.errors import NotReadyError, WorkFailedError, aws_errors
from cli.prices import hourly_price
from model.archives import write_archive
from model.metrics import METRIC_DEFINITIONS

SOURCE_DIR = ROOT / "model"
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_POLL_SECONDS = 1.0
_ENDED = ("Completed", "Failed", "Stopped")


class Place(StrEnum):
    """Where a training runs."""

    SAGEMAKER = "sagemaker"
    EC2 = "ec2"


@dataclass(frozen=True)
class TrainingRequest:
    """What to train on what."""

    data_set: str
    hyperparameters: dict[str, str] = field(default_factory=dict)
    instance_type: str | None = None  # None: the stage's settings


def train(
    context: typer.Context,
    data: Annotated[str, typer.Option(help="Name of the data set in the bucket.")] = SAMPLE_DIR.name,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A hyperparameter, as model/train.py --help lists them."),
    ] = None,
    instance_type: Annotated[str | None, typer.Option(help="Default: the stage's settings.")] = None,
    wait: Annotated[bool, typer.Option(help="Follow the job's log until it ends.")] = True,
    follow: Annotated[str | None, typer.Option(metavar="JOB", help="Start nothing: follow this job.")] = None,
    stop: Annotated[str | None, typer.Option(metavar="JOB", help="Start nothing: stop this job.")] = None,
    on: Annotated[Place, typer.Option(help="A SageMaker training job, or one EC2 instance.")] = Place.SAGEMAKER,
    spot: Annotated[bool | None, typer.Option(help="EC2: spare capacity. Default: the stage's settings.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="JOB", help="EC2: a new instance goes on with this job.")
    ] = None,
) -> None:
    """Train as a SageMaker training job, or on an EC2 instance that ends itself."""
    from cli import ec2_training  # which is built on this module

    stage: Stage = context.obj
    if on is Place.EC2 or ec2_training.is_ec2_job(stage, follow or stop or resume or ""):
        request = TrainingRequest(data, parse_hyperparameters(set_ or []), instance_type)
        ec2_training.run_command(stage, request, spot=spot, wait=wait, follow=follow, stop=stop, resume=resume)
        return
    if resume or spot is not None:
        raise NotReadyError("--resume and --spot are for trainings on EC2.", "Add --on ec2")
    if stop:
        with aws_errors():
            stage.client("sagemaker").stop_training_job(TrainingJobName=stop)
        console.print(f"{stop} is stopping; what it has learned so far is kept.")
        return
    job = follow or start_training(stage, TrainingRequest(data, parse_hyperparameters(set_ or []), instance_type))
    if not wait and not follow:
        console.print(f"Follow it: kennel train --follow {job}")
        return
    try:
        follow_training(stage, job)
    except KeyboardInterrupt:
        console.print(f"\nThe job goes on. Follow it: kennel train --follow {job}  Stop it: kennel train --stop {job}")
        raise
    console.print("Next: kennel package, then kennel deploy")


def parse_hyperparameters(assignments: list[str]) -> dict[str, str]:
    """`["lr=0.01"]` as `{"lr": "0.01"}`.

    Raises
    ------
    NotReadyError
        When one is not of the form NAME=VALUE.
    """
    parsed = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
            raise NotReadyError(f"--set {assignment!r} is not NAME=VALUE, such as --set lr=0.01")
        parsed[name] = value
    return parsed


def start_training(stage: Stage, request: TrainingRequest) -> str:
    """Start a training job; returns its name.

    Raises
    ------
    NotReadyError
        When the stacks are not deployed or the data set is not in the bucket.
    AwsError
        When SageMaker refuses the request.
    """
    bucket, role = stage.data_bucket, stage.output("training", "TrainingRoleArn")
    training, prefix = stage.settings.training, data_set_prefix(request.data_set)
    sagemaker = stage.client("sagemaker")
    with aws_errors():
        require_data_set(stage, request.data_set)
        source = upload_source(stage)
        job = f"{job_prefix(stage)}{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"[:63]
        instance_type = request.instance_type or training.instance_type
        sagemaker.create_training_job(
            TrainingJobName=job,
            RoleArn=role,
            AlgorithmSpecification={
                "TrainingImage": training.image.uri(stage.region),
                "TrainingInputMode": "File",
                "MetricDefinitions": METRIC_DEFINITIONS,
            },
            HyperParameters={
                name: json.dumps(value)  # the container's toolkit reads JSON values
                for name, value in {
                    **training_hyperparameters(stage, request),
                    "sagemaker_program": "train.py",
                    "sagemaker_submit_directory": source,
                    "sagemaker_region": stage.region,
                    "sagemaker_container_log_level": 20,
                }.items()
            },
            InputDataConfig=[
                {
                    "ChannelName": "training",
                    "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/{prefix}"}},
                }
            ],
            OutputDataConfig={"S3OutputPath": f"s3://{bucket}/training"},
            ResourceConfig={
                "InstanceType": instance_type,
                "InstanceCount": training.instance_count,
                "VolumeSizeInGB": training.volume_gb,
            },
            StoppingCondition={"MaxRuntimeInSeconds": training.max_runtime_seconds},
        )
    price = hourly_price(instance_type, training.instance_count)
    console.print(f"Training job {job} on {training.instance_count} × {instance_type} ({price}).")
    return job


def require_data_set(stage: Stage, name: str) -> None:
    """Refuse to start anything on a data set that is not in the bucket.

    Raises
    ------
    NotReadyError
    """
    listing = stage.client("s3").list_objects_v2(Bucket=stage.data_bucket, Prefix=data_set_prefix(name), MaxKeys=1)
    if not listing.get("Contents"):
        raise NotReadyError(f"There is no data set {name!r} in the bucket.", "Put one there: kennel data push DIR")


def upload_source(stage: Stage) -> str:
    """Put the training program into the bucket, under a key made of its contents; returns its address."""
    body = source_bundle(SOURCE_DIR)
    key = f"code/{hashlib.sha256(body).hexdigest()[:16]}/sourcedir.tar.gz"
    stage.client("s3").put_object(Bucket=stage.data_bucket, Key=key, Body=body)
    return f"s3://{stage.data_bucket}/{key}"


def training_hyperparameters(stage: Stage, request: TrainingRequest) -> dict[str, str]:
    """What the program gets as `--name value`: where it comes from, the stage's settings, and what was asked for."""
    provenance = {"model-name": request.data_set, "code-revision": _code_revision()}
    chosen = {**provenance, **stage.settings.training.hyperparameters, **request.hyperparameters}
    return {name: str(value) for name, value in chosen.items()}


def _code_revision() -> str:
    """The commit that the training program comes from, marked when the files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"  # a copy without its history


def job_prefix(stage: Stage) -> str:
    """What the names of this stage's training jobs begin with."""
    return f"{stage.settings.project}-{stage.name}-"


def source_bundle(folder: Path) -> bytes:
    """The training program as sourcedir.tar.gz: the same files give the same bytes."""
    bundle = io.BytesIO()
    write_archive(folder, bundle)
    return bundle.getvalue()


def follow_training(stage: Stage, job: str) -> dict[str, Any]:
    """Print a job's log until it ends; returns its description.

    Raises
    ------
    WorkFailedError
        When the job failed or was stopped; the message holds SageMaker's reason.
    """
    sagemaker, log = stage.client("sagemaker"), JobLog(stage, job)
    with aws_errors(), progress_bar(f"{job}: Starting"):
        while True:
            description: dict[str, Any] = sagemaker.describe_training_job(TrainingJobName=job)
            log.print_new()
            if description["TrainingJobStatus"] in _ENDED:
                break
            time.sleep(_POLL_SECONDS)
        log.print_new()
    status = description["TrainingJobStatus"]
    if status != "Completed":
        raise WorkFailedError(
            f"The training job {job} ended as {status}: {description.get('FailureReason', 'no reason was given')}",
            f"Its whole log: log group {LOG_GROUP}, streams {job}/…",
        )
    console.print(f"{job} completed in {description.get('TrainingTimeInSeconds', 0)} s.")
    return description


def latest_completed_job(stage: Stage) -> str:
    """Name of this stage's newest completed training job.

    Raises
    ------
    NotReadyError
        When there is none.
    """
    with aws_errors():
        pages = (
            stage.client("sagemaker")
            .get_paginator("list_training_jobs")
            .paginate(
                NameContains=job_prefix(stage), StatusEquals="Completed", SortBy="CreationTime", SortOrder="Descending"
            )
        )
        for page in pages:
            for summary in page["TrainingJobSummaries"]:
                if summary["TrainingJobName"].startswith(job_prefix(stage)):
                    return str(summary["TrainingJobName"])
    raise NotReadyError("No training job of this stage has completed yet.", "Train one: kennel train")


class JobLog:
    """The log lines of a job's instances, each printed once."""

    def __init__(self, stage: Stage, job: str, group: str = LOG_GROUP) -> None:
        self.group = group
        self._logs = stage.client("logs")
        self._job = job
        self._tokens: dict[str, str] = {}

    def print_new(self) -> None:
        """Print what has arrived since the last call."""
        try:
            streams = self._logs.describe_log_streams(logGroupName=self.group, logStreamNamePrefix=f"{self._job}/")
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return  # nothing has been logged in this account yet
            raise
        names = sorted(stream["logStreamName"] for stream in streams["logStreams"])
        for name in names:
            prefix = f"{name.split('/')[-1].rsplit('-', 1)[0]}  " if len(names) > 1 else ""
            while self._print_page(name, prefix):
                pass

    def _print_page(self, stream: str, prefix: str) -> bool:
        token = {"nextToken": self._tokens[stream]} if stream in self._tokens else {}
        page = self._logs.get_log_events(logGroupName=self.group, logStreamName=stream, startFromHead=True, **token)
        self._tokens[stream] = page["nextForwardToken"]
        for event in page["events"]:
            console.print(f"  {prefix}{event['message'].rstrip()}", markup=False, style="dim")
        return bool(page["events"])
