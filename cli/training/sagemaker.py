"""`kennel train`: one SageMaker training job, followed until it ends."""

from __future__ import annotations

import hashlib
import io
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import botocore.exceptions
import typer

from cli.aws import ROOT, Stage, announce
from cli.console import console, progress_bar
from cli.data.commands import SAMPLE_DIR
from cli.data.push import data_set_prefix
from cli.errors import NotReadyError, UsageError, WorkFailedError, aws_errors
from cli.prices import hourly_price
from cli.training.ec2_jobs import is_ec2_job
from cli.training.hyperparameters import canonical, encode, parse_hyperparameters, refuse_shell_syntax
from cli.training.job_names import job_name, job_prefix, tuning_prefix
from cli.training.phases import PhasePrinter
from cli.tuning.jobs import best_hyperparameters
from infra.bucket_layout import CHECKPOINTS, CODE, TRAINING_OUTPUT
from model.core.archives import write_archive
from model.training.loop.metrics import METRIC_DEFINITIONS

SOURCE_DIR = ROOT / "model"
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
#: The job's own first process, which gets SIGTERM: what SageMaker's toolkit runs does not. An argument may have 256
#: characters, so the rest is a program in the bundle.
CODE_CHANNEL = "code"
ENTRY_POINT = {
    "ContainerEntrypoint": ["/bin/bash", "-c"],
    "ContainerArguments": [
        f"mkdir -p /opt/ml/code && tar -xzf /opt/ml/input/data/{CODE_CHANNEL}/sourcedir.tar.gz -C /opt/ml/code"
        " && exec python /opt/ml/code/container_start.py"
    ],
}
#: SageMaker counts a job's time from when its instances are there; the program begins after the download of image and
#: data. So much of the time is left for that, and at most so many seconds.
PREPARATION_SHARE, PREPARATION_SECONDS = 0.1, 300.0
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
    # None: the stage's settings
    instance_type: str | None = None
    instances: int | None = None


def train(
    context: typer.Context,
    tuning_job: Annotated[
        str | None, typer.Argument(metavar="JOB", help="With --best: which tuning job. Default: the newest.")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="With the best values of a tuning job; --set wins.")] = False,
    data: Annotated[str, typer.Option(help="Name of the data set in the bucket.")] = SAMPLE_DIR.name,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A hyperparameter, as model/train.py --help lists them."),
    ] = None,
    instance_type: Annotated[str | None, typer.Option(help="Default: the stage's settings.")] = None,
    instances: Annotated[
        int | None, typer.Option(min=1, max=20, help="Machines that share one training. Default: the settings.")
    ] = None,
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
    from cli.training import ec2 as ec2_training  # which is built on this module

    stage: Stage = context.obj
    for job in (tuning_job, follow, stop, resume):
        if job is not None:
            job_name(job)
    if tuning_job and not best:
        raise UsageError(f"What is {tuning_job!r}? A tuning job goes with --best.", "kennel train --best JOB")
    _require_one_purpose({"--follow": follow, "--stop": stop, "--resume": resume}, new=bool(best or set_))
    hyperparameters = parse_hyperparameters(set_ or [])
    if best:
        hyperparameters = {**best_hyperparameters(stage, tuning_job), **hyperparameters}
    request = TrainingRequest(data, hyperparameters, instance_type, instances)
    if on is Place.EC2 or is_ec2_job(stage, follow or stop or resume or ""):
        if instances is not None:
            raise UsageError("--instances is for SageMaker: on EC2 one instance trains.", "Leave out --on ec2")
        if not follow:
            announce(stage)
        ec2_training.run_command(stage, request, spot=spot, wait=wait, follow=follow, stop=stop, resume=resume)
        return
    if resume or spot is not None:
        raise UsageError("--resume and --spot are for trainings on EC2.", "Add --on ec2")
    if not follow:
        announce(stage)
    if stop:
        with aws_errors():
            stage.client("sagemaker").stop_training_job(TrainingJobName=stop)
        console.print(f"{stop} is stopping; what it has learned so far is kept.")
        return
    job = follow or start_training(stage, request)
    if not wait and not follow:
        console.print(f"Follow it: kennel train --follow {job}")
        return
    try:
        follow_training(stage, job)
    except KeyboardInterrupt:
        console.print(f"\nThe job goes on. Follow it: kennel train --follow {job}  Stop it: kennel train --stop {job}")
        raise
    console.print("Next: kennel package, then kennel deploy")


def _require_one_purpose(earlier: dict[str, str | None], *, new: bool) -> None:
    """Refuse options that would be ignored: those of a new training beside an earlier one's, and two of the latter."""
    given = [option for option, job in earlier.items() if job]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} do not go together.", "Give one of them.")
    if given and new:
        raise UsageError(
            f"{given[0]} takes a training as it was started: --set and --best are for a new one.",
            f"Leave them out, or leave out {given[0]}.",
        )


def start_training(stage: Stage, request: TrainingRequest) -> str:
    """Start a training job; returns its name.

    Raises
    ------
    NotReadyError
        When the stacks are not deployed or the data set is not in the bucket.
    AwsError
        When SageMaker refuses the request.
    """
    job = f"{job_prefix(stage)}{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"[:63]
    with aws_errors():
        hyperparameters = sagemaker_hyperparameters(stage, request)
        definition = training_definition(stage, request, job)
        source = upload_source(stage)
        console.print(f"Training job {job} on {machines(stage, request)}.")
        definition["AlgorithmSpecification"] |= ENTRY_POINT
        definition["InputDataConfig"].append(_channel(CODE_CHANNEL, f"{source.rpartition('/')[0]}/"))
        stage.client("sagemaker").create_training_job(
            TrainingJobName=job, HyperParameters=encode(hyperparameters), **definition
        )
    return job


def training_definition(stage: Stage, request: TrainingRequest, job: str) -> dict[str, Any]:
    """What CreateTrainingJob and the TrainingJobDefinition of a tuning job have in common.

    Parameters
    ----------
    job : str
        The training or tuning job; its checkpoints are kept under this name.

    Raises
    ------
    NotReadyError
        When the stacks are not deployed or the data set is not in the bucket.
    """
    bucket, training = stage.data_bucket, stage.settings.training
    require_data_set(stage, request.data_set)
    instances = request.instances or training.instance_count
    return {
        "RoleArn": stage.output("training", "TrainingRoleArn"),
        "AlgorithmSpecification": {
            "TrainingImage": training.image.uri(stage.region),
            "TrainingInputMode": "File",
            "MetricDefinitions": METRIC_DEFINITIONS,
        },
        "InputDataConfig": [_channel("training", f"s3://{bucket}/{data_set_prefix(request.data_set)}")],
        "OutputDataConfig": {
            "S3OutputPath": f"s3://{bucket}/{TRAINING_OUTPUT}",
            "KmsKeyId": stage.output("storage", "DataKeyArn"),
        },
        # A job that SageMaker begins anew, on spot capacity or after a fault of its own, finds what it had saved.
        # Without the slash at its end the address would also stand for those that begin alike.
        "CheckpointConfig": {"S3Uri": f"s3://{bucket}/{CHECKPOINTS}/{job}/"},
        "ResourceConfig": {
            "InstanceType": request.instance_type or training.instance_type,
            "InstanceCount": instances,
            "VolumeSizeInGB": training.volume_gb,
        },
        "EnableInterContainerTrafficEncryption": training.encrypt_traffic and instances > 1,
        "EnableManagedSpotTraining": training.spot,
        "StoppingCondition": training.stopping_condition,
    }


def _channel(name: str, address: str) -> dict[str, Any]:
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": address}}}


def machines(stage: Stage, request: TrainingRequest, jobs: int = 1) -> str:
    """What a training runs on and what that costs, `jobs` of them at a time, as a phrase for a person."""
    training = stage.settings.training
    instance_type, count = request.instance_type or training.instance_type, request.instances or training.instance_count
    price = hourly_price(instance_type, count * jobs)
    at_a_time = f"{jobs} jobs at a time, each on " if jobs > 1 else ""
    return f"{at_a_time}{count} × {instance_type} ({price}{'; spot capacity, billed below that' * training.spot})"


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
    key = f"{CODE}/{hashlib.sha256(body).hexdigest()[:16]}/sourcedir.tar.gz"
    stage.client("s3").put_object(Bucket=stage.data_bucket, Key=key, Body=body)
    return f"s3://{stage.data_bucket}/{key}"


def training_hyperparameters(stage: Stage, request: TrainingRequest, max_runtime: int) -> dict[str, str]:
    """What the program gets as `--name value`: where it comes from, its time, the settings, and what was asked for.

    Raises
    ------
    UsageError
        For a value that a shell would change.
    """
    provenance = {"model-name": request.data_set, "code-revision": _code_revision()}
    limit = {"max-runtime": max_runtime}
    settings = {canonical(name): value for name, value in stage.settings.training.hyperparameters.items()}
    values = {
        name: str(value) for name, value in {**provenance, **limit, **settings, **request.hyperparameters}.items()
    }
    refuse_shell_syntax(values)
    return values


def sagemaker_hyperparameters(stage: Stage, request: TrainingRequest) -> dict[str, str]:
    """What the program of a training job gets; its time is the job's, less what passes before the program begins."""
    seconds = stage.settings.training.max_runtime_seconds
    before = min(PREPARATION_SHARE * seconds, PREPARATION_SECONDS)
    return training_hyperparameters(stage, request, int(seconds - before))


def _code_revision() -> str:
    """The commit that the training program comes from, marked when the files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        described = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # a machine without git, or a copy without its history
    return described.stdout.strip()


def source_bundle(folder: Path) -> bytes:
    """The training program as sourcedir.tar.gz: the same files give the same bytes."""
    bundle = io.BytesIO()
    write_archive(folder, bundle)
    return bundle.getvalue()


def follow_training(stage: Stage, job: str) -> dict[str, Any]:
    """Print a job's phases and its log until it ends; returns its description.

    Raises
    ------
    WorkFailedError
        When the job failed or was stopped; the message holds SageMaker's reason.
    """
    sagemaker, log, phases = stage.client("sagemaker"), JobLog(stage, job), PhasePrinter()
    with aws_errors(), progress_bar(job):
        while True:
            description: dict[str, Any] = sagemaker.describe_training_job(TrainingJobName=job)
            phases.print_new(description)
            log.print_new()
            if description["TrainingJobStatus"] in _ENDED:
                break
            time.sleep(_POLL_SECONDS)
        log.print_new()
    status = description["TrainingJobStatus"]
    if status != "Completed":
        # Of a job that was stopped, only the secondary status tells a limit from somebody's wish.
        reason = description.get("FailureReason", description.get("SecondaryStatus", status))
        raise WorkFailedError(
            f"The training job {job} ended as {status}{f': {reason}' if reason != status else ''}",
            f"Its whole log: log group {LOG_GROUP}, streams {job}/…",
        )
    console.print(f"{job} completed in {description.get('TrainingTimeInSeconds', 0)} s.{saved_by_spot(description)}")
    return description


def saved_by_spot(description: dict[str, Any]) -> str:
    """What spot capacity saved, as AWS computes it ("Managed Spot Training", cost savings); empty without."""
    seconds, billed = description.get("TrainingTimeInSeconds"), description.get("BillableTimeInSeconds")
    if not description.get("EnableManagedSpotTraining") or not seconds or billed is None:
        return ""
    return f" Of these, {billed} s are billed: spot capacity saved {1 - billed / seconds:.0%}."


def latest_completed_job(stage: Stage) -> tuple[datetime, str] | None:
    """When this stage's newest completed training job was started, and its name; None when there is none."""
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
                name = str(summary["TrainingJobName"])
                # The last training of a search is rarely its best one: whoever wants that says so.
                if name.startswith(job_prefix(stage)) and not name.startswith(tuning_prefix(stage)):
                    return summary["CreationTime"], name
    return None


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
            console.print(f"  {prefix}{event['message'].rstrip()}", style="dim")
        return bool(page["events"])
