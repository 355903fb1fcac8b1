"""A training as a SageMaker training job: its request, its start, and following it until it ends."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.aws import ROOT, Stage
from cli.console import console, progress_bar
from cli.costs.table import job_price
from cli.data.push import data_set_prefix
from cli.errors import NotReadyError, UsageError, aws_errors
from cli.training.checks import check_training
from cli.training.following import JobLog, PhasePrinter
from cli.training.hyperparameters import DATA_SET, encode, planned_epochs, refuse_shell_syntax
from cli.training.job_names import job_prefix, new_job
from infra.bucket_layout import CHECKPOINTS, CODE, TRAINING_OUTPUT
from infra.instance_types import has_local_storage
from model.core.archives import write_archive
from model.training.arguments import canonical, set_by_jobs
from model.training.loop.metrics import METRIC_DEFINITIONS

#: What lies at the root of a training job's bundle, beside the package `model`.
SOURCE_DIR = ROOT / "model" / "training" / "job"
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


@dataclass(frozen=True)
class TrainingRequest:
    """What to train on what; None stands for the stage's settings. `instances` is for SageMaker, `spot` for EC2."""

    data_set: str
    hyperparameters: dict[str, str] = field(default_factory=dict)
    instance_type: str | None = None
    instances: int | None = None
    spot: bool | None = None

    def __post_init__(self) -> None:
        given = {canonical(name): str(value) for name, value in self.hyperparameters.items()}
        object.__setattr__(self, "hyperparameters", given)


def start_training(stage: Stage, request: TrainingRequest) -> str:
    """Say what it costs and start a training job; return its name."""
    job = new_job(job_prefix(stage))
    with aws_errors():
        hyperparameters = training_hyperparameters(stage, request)
        definition = training_definition(stage, request, job)
        source = upload_source(stage)
        machines = definition["ResourceConfig"]
        kind = f"{machines['InstanceCount']} × {machines['InstanceType']}"
        console.print(f"Training job {job} on {kind} ({training_price(definition)}).")
        definition["AlgorithmSpecification"] |= ENTRY_POINT
        definition["InputDataConfig"].append(_channel(CODE_CHANNEL, f"{source.rpartition('/')[0]}/"))
        stage.client("sagemaker").create_training_job(
            TrainingJobName=job, HyperParameters=encode(hyperparameters), Tags=stage.tag_list, **definition
        )
    return job


def training_definition(stage: Stage, request: TrainingRequest, job: str) -> dict[str, Any]:
    """Return what CreateTrainingJob and the TrainingJobDefinition of a tuning job have in common.

    The checkpoints are kept under the name of the training or tuning job.
    """
    bucket, training, key = stage.data_bucket, stage.settings.training, stage.output("storage", "DataKeyArn")
    instances = request.instances or training.instance_count
    instance_type = request.instance_type or training.instance_type
    return {
        "RoleArn": stage.output("training", "TrainingRoleArn"),
        "AlgorithmSpecification": {
            "TrainingImage": training.image.uri(stage.region),
            "TrainingInputMode": "File",
            "MetricDefinitions": METRIC_DEFINITIONS,
        },
        "InputDataConfig": [_channel("training", f"s3://{bucket}/{data_set_prefix(request.data_set)}")],
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/{TRAINING_OUTPUT}", "KmsKeyId": key},
        # A job that SageMaker begins anew finds what it had saved. The slash keeps other names that begin alike out.
        "CheckpointConfig": {"S3Uri": f"s3://{bucket}/{CHECKPOINTS}/{job}/"},
        "ResourceConfig": {
            "InstanceType": instance_type,
            "InstanceCount": instances,
            "VolumeSizeInGB": training.volume_gb,
            **({} if has_local_storage(instance_type) else {"VolumeKmsKeyId": key}),  # such disks take no key
        },
        "EnableInterContainerTrafficEncryption": training.encrypt_traffic and instances > 1,
        "EnableManagedSpotTraining": training.spot,
        "StoppingCondition": training.stopping_condition,
    }


def _channel(name: str, address: str) -> dict[str, Any]:
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": address}}}


def training_price(definition: dict[str, Any], *, jobs: int = 1, at_once: int = 1) -> str:
    """Return what some trainings of one definition cost, by the hour and at most."""
    machines, seconds = definition["ResourceConfig"], definition["StoppingCondition"]["MaxRuntimeInSeconds"]
    kind, instances, volume_gb = (machines[name] for name in ("InstanceType", "InstanceCount", "VolumeSizeInGB"))
    spot = "; spot capacity, billed below that" if definition["EnableManagedSpotTraining"] else ""
    price = job_price(kind, instances, volume_gb=volume_gb, seconds=seconds, jobs=jobs, at_once=at_once)
    return f"{price}{spot}"


def upload_source(stage: Stage) -> str:
    """Put the training program into the bucket, under a key made of its contents; return its address."""
    body = source_bundle(SOURCE_DIR)
    key = f"{CODE}/{hashlib.sha256(body).hexdigest()[:16]}/sourcedir.tar.gz"
    stage.client("s3").put_object(Bucket=stage.data_bucket, Key=key, Body=body)
    return f"s3://{stage.data_bucket}/{key}"


def training_hyperparameters(
    stage: Stage,
    request: TrainingRequest,
    *,
    instances: int | None = None,
    max_runtime: int | None = None,
    searched: Sequence[Mapping[str, str]] = ({},),
) -> dict[str, str]:
    """Return what the program gets as `--name value`: where it comes from, its time, the settings, what was asked for.

    Its time is the job's (in seconds), less what passes before the program begins. Values that a shell would change or
    the program, with any of the `searched` ones in place, would not take are refused, and a data set that will not do.
    """
    training = stage.settings.training
    max_runtime = max_runtime or training.max_runtime_seconds
    limit = int(max_runtime - min(PREPARATION_SHARE * max_runtime, PREPARATION_SECONDS))
    known = {DATA_SET: request.data_set, "code-revision": _code_revision(), "max-runtime": limit}
    settings = {canonical(name): value for name, value in training.hyperparameters.items()}
    values = {name: str(value) for name, value in {**known, **settings, **request.hyperparameters}.items()}
    refuse_shell_syntax(values)
    if taken := set_by_jobs() & {*values, *searched[0]}:
        raise UsageError(f"A job sets {', '.join(sorted(taken))} itself.", "Leave it out.")
    given = [{**values, **tried} for tried in searched]
    check_training(stage, request.data_set, given, instances or request.instances or training.instance_count)
    return values


def _code_revision() -> str:
    """Return the commit that the training program comes from, marked when the files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        described = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # a machine without git, or a copy without its history
    return described.stdout.strip()


def source_bundle(folder: Path) -> bytes:
    """Return a folder's files and the package `model` as sourcedir.tar.gz: the same files give the same bytes."""
    bundle = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="bundle-") as root:
        shutil.copytree(folder, root, dirs_exist_ok=True)
        shutil.copytree(ROOT / "model", Path(root, "model"), ignore=shutil.ignore_patterns("__pycache__", "job"))
        write_archive(Path(root), bundle)
    return bundle.getvalue()


def stop_training(stage: Stage, job: str) -> None:
    """Ask a job to save what it has and end."""
    with _named(stage, job):
        stage.client("sagemaker").stop_training_job(TrainingJobName=job)


def describe_training(stage: Stage, job: str) -> dict[str, Any]:
    """Return what SageMaker says of a job; raise NotReadyError when there is none of that name."""
    with _named(stage, job):
        description: dict[str, Any] = stage.client("sagemaker").describe_training_job(TrainingJobName=job)
    return description


def _named(stage: Stage, job: str) -> AbstractContextManager[None]:
    """Name the job that AWS does not find; its own words are "Requested resource not found."."""
    return aws_errors(missing=NotReadyError(f"There is no training job {job!r} in {stage.place}."))


def follow_training(stage: Stage, job: str) -> dict[str, Any]:
    """Print a job's phases and its log until it ends; return its description. A bad end is a WorkFailedError."""
    log, phases, description = JobLog(stage, job, LOG_GROUP), PhasePrinter(), describe_training(stage, job)
    epochs = planned_epochs(description["HyperParameters"])
    with aws_errors(), log.goes_on(training_price(description)), progress_bar(job, epochs) as report:
        while True:
            description = describe_training(stage, job)
            phases.print_new(description)
            log.print_new()
            report(log.epoch)
            if description["TrainingJobStatus"] in _ENDED:
                break
            time.sleep(_POLL_SECONDS)
    status = description["TrainingJobStatus"]
    # Of a job that was stopped, only the secondary status tells a limit from somebody's wish.
    log.require_completed(status, description.get("FailureReason", description.get("SecondaryStatus", status)))
    seconds = description.get("TrainingTimeInSeconds", 0)
    console.print(f"{job} completed in {seconds} s.{saved_by_spot(description)}")
    return description


def saved_by_spot(description: dict[str, Any]) -> str:
    """Say what spot capacity saved, as AWS computes it ("Managed Spot Training", cost savings); nothing without."""
    seconds, billed = description.get("TrainingTimeInSeconds"), description.get("BillableTimeInSeconds")
    if not description.get("EnableManagedSpotTraining") or not seconds or billed is None:
        return ""
    return f" Of these, {billed} s are billed: spot capacity saved {1 - billed / seconds:.0%}."
