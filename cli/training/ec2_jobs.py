"""What S3 holds of a stage's trainings on EC2: what is to be trained, and how that stands.

The first only people can write. The second is written by the training, and any other training of the stage could write
it, too: it is believed in what it says of itself, and in nothing that costs money or chooses the model to be deployed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cli.aws import Stage
from cli.errors import NotReadyError, aws_errors
from cli.training.job_names import job_prefix
from infra.bucket_layout import EC2_JOBS, TRAINING_OUTPUT
from infra.settings import Ec2TrainingSettings
from programs.ec2_training.training_instance.job import COMPLETED, STOPPED, Job, Status, job_key, status_key

_TYPE = "instance-type"
_STATUS_TYPES = {
    "state": str,
    "reason": str | None,
    "instance_type": str,
    "started": int | float,
    "ended": int | float | None,
}


@dataclass(frozen=True)
class Launched:
    """A training that the command line has launched.

    Attributes
    ----------
    job : Job
    instance_type : str or None
        Of its last instance; None for what an earlier release has launched.
    time : datetime
        Of its last launch, by S3's clock.
    """

    job: Job
    instance_type: str | None
    time: datetime


def name_prefix(stage: Stage) -> str:
    """What the names of this stage's trainings on EC2 begin with."""
    return f"{job_prefix(stage)}ec2-"


def is_ec2_job(stage: Stage, job: str) -> bool:
    """Whether a job of this stage is one that an EC2 instance trains."""
    return job.startswith(name_prefix(stage))


def write_launch(stage: Stage, job: Job, instance_type: str) -> None:
    """Describe a job for an instance that is launched now, and say so in place of what an earlier one reported."""
    _put_json(stage, job_key(EC2_JOBS, job.name), job.dump(), {_TYPE: instance_type})
    write_status(stage, Status(job.name, "", instance_type, state="Launching"))


def write_status(stage: Stage, status: Status) -> None:
    """Say how a job stands."""
    _put_json(stage, status_key(TRAINING_OUTPUT, status.job), status.dump(), {})


def read_launch(stage: Stage, job: str) -> Launched:
    """Read what a job was launched as.

    Raises
    ------
    NotReadyError
        When the command line has launched no such job.
    """
    answer = _get(stage, job_key(EC2_JOBS, job))
    if answer is None:
        raise _no_such_job(job)
    return Launched(Job.parse(answer["Body"].read().decode()), answer["Metadata"].get(_TYPE), answer["LastModified"])


def read_status(stage: Stage, job: str) -> dict[str, Any]:
    """Read what a job says of itself.

    Raises
    ------
    NotReadyError
        When there is no such job, or that is no status.
    """
    answer = _get(stage, status_key(TRAINING_OUTPUT, job))
    if answer is None:
        raise _no_such_job(job)
    try:
        status: dict[str, Any] = json.loads(answer["Body"].read())
        valid = all(isinstance(status[name], kind) for name, kind in _STATUS_TYPES.items())
    except (ValueError, TypeError, LookupError, RecursionError):
        valid = False
    if not valid:
        raise NotReadyError(f"The status of {job} is none: s3://{stage.data_bucket}/{status_key(TRAINING_OUTPUT, job)}")
    return status


def latest_completed_job(stage: Stage) -> tuple[datetime, str] | None:
    """When this stage's newest completed job on EC2 was launched, and its name; None when there is none."""
    prefix, ending = f"{EC2_JOBS}/{name_prefix(stage)}", ".json"
    with aws_errors():
        pages = stage.client("s3").get_paginator("list_objects_v2").paginate(Bucket=stage.data_bucket, Prefix=prefix)
        found = [
            (item["LastModified"], item["Key"].removeprefix(f"{EC2_JOBS}/").removesuffix(ending))
            for page in pages
            for item in page.get("Contents", [])
            if item["Key"].endswith(ending)
        ]
    for launched, job in sorted(found, reverse=True):
        try:
            if read_status(stage, job)["state"] == COMPLETED:
                return launched, job
        except NotReadyError:  # of one that was never launched, or that is broken
            continue
    return None


def latest_end(stage: Stage, job: str) -> float:
    """When a job has ended at the latest, in seconds since the epoch: what it says, but not after its instance's limit.

    Raises
    ------
    NotReadyError
        When there is no such job, or it has left no model.
    """
    launch, status = read_launch(stage, job), read_status(stage, job)
    if status["state"] not in (COMPLETED, STOPPED) or status["ended"] is None:
        raise NotReadyError(
            f"The training job {job} has left no model (state {status['state']}).",
            f"Follow it to its end: kennel train --follow {job}",
        )
    seconds = launch.job.max_runtime_seconds + Ec2TrainingSettings.SHUTDOWN_MARGIN_SECONDS
    return min(launch.time.timestamp() + seconds, status["ended"])


def _no_such_job(job: str) -> NotReadyError:
    return NotReadyError(f"There is no training job {job!r} on EC2 in this stage.")


def _get(stage: Stage, key: str) -> dict[str, Any] | None:
    s3 = stage.client("s3")
    with aws_errors():
        try:
            answer: dict[str, Any] = s3.get_object(Bucket=stage.data_bucket, Key=key)
        except s3.exceptions.NoSuchKey:
            return None
    return answer


def _put_json(stage: Stage, key: str, text: str, metadata: dict[str, str]) -> None:
    stage.client("s3").put_object(
        Bucket=stage.data_bucket, Key=key, Body=text.encode(), ContentType="application/json", Metadata=metadata
    )
