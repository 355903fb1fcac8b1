"""`kennel package`: from a completed training job to the artifact that is deployed."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Annotated
from urllib.parse import urlparse

import typer

from cli import ec2_training
from cli.aws import Stage
from cli.console import console
from cli.errors import NotReadyError, aws_errors
from cli.training import latest_completed_job
from model.artifact import ArtifactError, ModelCard


def package(
    context: typer.Context,
    job: Annotated[str | None, typer.Option(help="Which training job (default: the newest completed one).")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="A local model.tar.gz or model folder instead of a job's.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write it (default: the stage's settings).")] = None,
) -> None:
    """Make the deployable artifact of a model."""
    stage: Stage = context.obj
    destination = output or stage.artifact
    card = package_model(stage, destination, job=job, source=source)
    console.print(
        f"{destination}: {card.architecture}, {len(card.labels)} classes, {card.precision}, {card.version[:19]}…, "
        f"{destination.stat().st_size / 1e6:.1f} MB"
    )


def package_model(stage: Stage, destination: Path, *, job: str | None = None, source: Path | None = None) -> ModelCard:
    """Fetch, verify and repack a model; returns its card.

    Parameters
    ----------
    destination : Path
        The model.tar.gz to write; an existing one is replaced only by one that has been verified.
    job : str, optional
        The training job whose model it is; default the newest completed one of the stage.
    source : Path, optional
        A model.tar.gz or folder on this machine, instead of a job's.

    Raises
    ------
    NotReadyError
        When there is no completed job, or the artifact is corrupt or incomplete.
    """
    from model import packaging  # numpy and the inference engine: not needed by the other commands

    try:
        if source is not None:
            return packaging.package(source, destination)
        with tempfile.TemporaryDirectory() as folder:
            fetched = Path(folder, "model.tar.gz")
            _fetch_model(stage, job or _newest_job(stage), fetched)
            return packaging.package(fetched, destination)
    except ArtifactError as error:
        raise NotReadyError(f"The model cannot be deployed: {error}") from error


def _newest_job(stage: Stage) -> str:
    """The newest completed training, wherever it ran."""
    on_ec2 = ec2_training.latest_completed_job(stage)
    try:
        on_sagemaker = latest_completed_job(stage)
    except NotReadyError:
        if on_ec2 is None:
            raise
        return on_ec2
    return max(on_ec2 or "", on_sagemaker, key=_start_time)


def _start_time(job: str) -> str:
    """The time in a job's name, in a form that sorts."""
    match = re.search(r"\d{8}-\d{6}(-\d+)?", job)
    return match[0] if match else ""


def _fetch_model(stage: Stage, job: str, destination: Path) -> None:
    if ec2_training.is_ec2_job(stage, job):
        location = urlparse(ec2_training.model_location(stage, job))
    else:
        location = urlparse(_sagemaker_model(stage, job))
    s3, key = stage.client("s3"), location.path.lstrip("/")
    with aws_errors():
        if not s3.list_objects_v2(Bucket=location.netloc, Prefix=key, MaxKeys=1).get("Contents"):
            raise NotReadyError(f"The training job {job} was stopped before it had a model.", "Train one: kennel train")
        s3.download_file(location.netloc, key, str(destination))


def _sagemaker_model(stage: Stage, job: str) -> str:
    with aws_errors():
        description = stage.client("sagemaker").describe_training_job(TrainingJobName=job)
        status = description["TrainingJobStatus"]
        if status not in ("Completed", "Stopped"):
            raise NotReadyError(
                f"The training job {job} has left no model (status {status}).",
                "Follow it to its end: kennel train --follow " + job,
            )
        return str(description["ModelArtifacts"]["S3ModelArtifacts"])
