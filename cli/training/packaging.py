"""`kennel package`: from a completed training job to the artifact that is deployed."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.aws import Stage, announce
from cli.console import AsJson, console, progress_bar, show
from cli.errors import AwsError, NotReadyError, aws_errors
from cli.models import registry
from cli.training import ec2_jobs
from cli.training.job_names import job_name, job_prefix, list_jobs
from cli.training.sagemaker import describe_training
from infra import job_names
from infra.bucket_layout import TRAINING_OUTPUT
from model.core.artifact import ArtifactError, ModelCard

#: A model is uploaded before its job ends (TrainingEndTime: "the time after model artifacts are uploaded"). So this is
#: for S3's times, which are whole seconds, and for the clocks of two services of AWS, which are in step to about one.
_CLOCKS_SECONDS = 5.0


def package(
    context: typer.Context,
    job: Annotated[str | None, typer.Option(help="Which training job (default: the newest completed one).")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="A model.tar.gz or folder instead of a job's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the artifact that is deployed, and register it."""
    stage: Stage = context.obj
    if source is None and job is None:
        job = newest_job(stage)
    card = package_model(stage, stage.artifact, job=job, source=source)
    what = f"{card.architecture}, {len(card.labels)} classes, {card.precision}, {card.version[:19]}…"
    size = f"{stage.artifact.stat().st_size / 1e6:.1f} MB"
    show({"artifact": stage.artifact, **asdict(card)}, f"{stage.artifact}: {what}, {size}")
    register_model(stage, card, None if source else job)


def register_model(stage: Stage, card: ModelCard, job: str | None) -> None:
    """Register the stage's artifact; where that cannot be done, say why: the artifact is of use all the same."""
    try:
        announce(stage)
        number = registry.register(stage, stage.artifact, card, job)
    except (AwsError, NotReadyError) as error:
        console.print(f"Not registered, so `{stage.kennel} models` does not know it: {error} {error.hint}".rstrip())
        return
    console.print(
        f"Registered as version {number}. To deploy it: {stage.kennel} models approve {number}, then {stage.kennel} "
        "models deploy"
    )


def package_model(stage: Stage, destination: Path, *, job: str | None = None, source: Path | None = None) -> ModelCard:
    """Fetch, verify and repack a model as `destination`, a model.tar.gz; return its card.

    It is that of a training job, or a local `source` (archive or folder).
    """
    from model.core import packaging  # numpy and the inference engine: not needed by the other commands

    try:
        if source is not None:
            return packaging.package(source, destination)
        assert job is not None  # one of the two is given
        with tempfile.TemporaryDirectory() as folder:
            fetched = Path(folder, "model.tar.gz")
            _fetch_model(stage, job_name(job), fetched)
            return packaging.package(fetched, destination)
    except ArtifactError as error:
        raise NotReadyError(f"The model cannot be deployed: {error}") from error


def newest_job(stage: Stage) -> str:
    """Return the newest completed training, wherever it ran, by AWS's clock: a name may hold any time."""
    found = [job for job in (ec2_jobs.latest_completed_job(stage), _latest_completed_job(stage)) if job is not None]
    if not found:
        raise NotReadyError("No training job of this stage has completed yet.", "Train one: kennel train")
    return max(found)[1]


def _fetch_model(stage: Stage, job: str, destination: Path) -> None:
    """Fetch the model from the place where the job has left it, and only what it can have left there itself."""
    bucket, key = stage.data_bucket, f"{TRAINING_OUTPUT}/{job}/output/model.tar.gz"
    location, on_ec2 = f"s3://{bucket}/{key}", ec2_jobs.is_ec2_job(stage, job)
    begin, end = ec2_jobs.begin_and_end(stage, job) if on_ec2 else _begin_and_end_on_sagemaker(stage, job, location)
    versions = ec2_jobs.s3_versions(stage, key)
    if not versions:
        raise NotReadyError(f"The training job {job} was stopped before it had a model.", "Train one: kennel train")
    since = [version for version in versions if begin - _CLOCKS_SECONDS <= version["LastModified"].timestamp()]
    own = [version for version in since if version["LastModified"].timestamp() <= end + _CLOCKS_SECONDS]
    if not own:
        raise NotReadyError(
            f"{location} is of {versions[0]['LastModified']:%Y-%m-%d %H:%M:%S} UTC, when {job} did not run: something "
            "else has written it.",
            "Find out what has; train again: kennel train",
        )
    # The end of an EC2 training is known from its status alone, which another training can write too early.
    if (count := len(since if on_ec2 else own)) > 1:
        raise NotReadyError(
            f"{location} was written {count} times since {job} began. A training writes its model once, so another "
            "one may have replaced it.",
            "Find out what has; train again: kennel train. Or download a version that you trust: kennel package --from",
        )
    if own[0] is not versions[0]:
        console.print(f"{location} was written again after the end of {job}: the version of its end is taken.")
    with aws_errors(), progress_bar("Fetching the model"), destination.open("wb") as file:
        model = stage.client("s3").get_object(Bucket=bucket, Key=key, VersionId=own[0]["VersionId"])
        shutil.copyfileobj(model["Body"], file)


def _latest_completed_job(stage: Stage) -> tuple[datetime, str] | None:
    """Return when this stage's newest completed training job was started, and its name; None when there is none."""
    trial = job_names.tuning_prefix(stage.settings)  # the last trial of a search is rarely its best: it has to be named
    bucket = f"s3://{stage.data_bucket}/"  # jobs stay for ever: the bucket of an earlier deployment is gone
    for summary in list_jobs(stage, "training", job_prefix(stage), "Completed"):
        name = str(summary["TrainingJobName"])
        if name.startswith(trial):
            continue
        if describe_training(stage, name)["ModelArtifacts"]["S3ModelArtifacts"].startswith(bucket):
            return summary["CreationTime"], name
    return None


def _begin_and_end_on_sagemaker(stage: Stage, job: str, location: str) -> tuple[float, float]:
    """Return when a job was created and has ended, in seconds since the epoch."""
    description = describe_training(stage, job)
    status = description["TrainingJobStatus"]
    if status not in ("Completed", "Stopped"):
        follow = f"Follow it to its end: kennel train --follow {job}"
        raise NotReadyError(f"The training job {job} has left no model (status {status}).", follow)
    if description["ModelArtifacts"]["S3ModelArtifacts"] != location:
        raise NotReadyError(
            f"The model of {job} is not at {location}: it is not a training of this stage.",
            "To package it all the same, download it: kennel package --from FILE",
        )
    end = description.get("TrainingEndTime") or description["LastModifiedTime"]  # the first only of one that has begun
    return description["CreationTime"].timestamp(), end.timestamp()
