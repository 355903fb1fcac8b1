"""What S3 holds of a stage's trainings on EC2: what is to be trained, and how that stands.

The first only people can write. The second is written by the training, and any other training of the stage could write
it, too: it is believed in what it says of itself, and in nothing that costs money. Which model is deployed rests on the
first end that it names, which no later training can change: the bucket keeps versions, and no training may delete one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from cli.aws import Stage
from cli.errors import NotReadyError, aws_errors
from cli.training.job_names import job_prefix
from infra.bucket_layout import EC2_JOBS, TRAINING_OUTPUT
from infra.settings import Ec2TrainingSettings
from programs.ec2_training.training_instance.job import COMPLETED, FAILED, STOPPED, Job, Status, job_key, status_key

_TYPE = "instance-type"
_MAX_STATUS_BYTES = 2**16
_STATUS = TypeAdapter(Status)
#: The state of a job from its launch until its program says another.
LAUNCHING = "Launching"


class Launched(NamedTuple):
    """A training that the command line has launched, the type of its last instance, and when, by S3's clock."""

    job: Job
    instance_type: str
    time: datetime


def name_prefix(stage: Stage) -> str:
    """Return what the names of this stage's trainings on EC2 begin with."""
    return f"{job_prefix(stage)}ec2-"


def is_ec2_job(stage: Stage, job: str) -> bool:
    """Return whether a job of this stage is one that an EC2 instance trains."""
    return job.startswith(name_prefix(stage))


def write_launch(stage: Stage, job: Job, instance_type: str) -> None:
    """Describe a job for an instance that is launched now, and say so in place of what an earlier one reported."""
    _put_json(stage, job_key(EC2_JOBS, job.name), job.dump(), {_TYPE: instance_type})
    write_status(stage, Status(job.name, "", instance_type, state=LAUNCHING))


def write_status(stage: Stage, status: Status) -> None:
    """Say how a job stands."""
    _put_json(stage, status_key(TRAINING_OUTPUT, status.job), status.dump(), {})


def read_launch(stage: Stage, job: str) -> Launched:
    """Read what a job was launched as; raise NotReadyError when the command line has launched no such job."""
    answer = _get(stage, job, job_key(EC2_JOBS, job))
    return Launched(Job.parse(answer["Body"].read().decode()), answer["Metadata"][_TYPE], answer["LastModified"])


def read_status(stage: Stage, job: str) -> Status:
    """Read what a job says of itself; raise NotReadyError when there is no such job, or that is no status."""
    key = status_key(TRAINING_OUTPUT, job)
    status = _parse_status(_get(stage, job, key))
    if status is None:
        raise NotReadyError(f"The status of {job} is none: s3://{stage.data_bucket}/{key}")
    return status


def s3_versions(stage: Stage, key: str) -> list[dict[str, Any]]:
    """List what S3 has kept of an object, the newest version first."""
    versions = stage.listed("s3", "list_object_versions", "Versions", Bucket=stage.data_bucket, Prefix=key)
    return [version for version in versions if version["Key"] == key]


def latest_completed_job(stage: Stage) -> tuple[datetime, str] | None:
    """Return when this stage's newest completed job on EC2 was launched, and its name; None when there is none."""
    prefix, ending = f"{EC2_JOBS}/", ".json"
    place = {"Bucket": stage.data_bucket, "Prefix": prefix + name_prefix(stage)}
    launched = [
        (item["LastModified"], item["Key"].removeprefix(prefix).removesuffix(ending))
        for item in stage.listed("s3", "list_objects_v2", "Contents", **place)
        if item["Key"].endswith(ending)
    ]
    for time, job in sorted(launched, reverse=True):
        if first_end(stage, job, time)[0] == COMPLETED:
            return time, job
    return None


def begin_and_end(stage: Stage, job: str) -> tuple[float, float]:
    """Return when a job was last launched, and had ended at the latest, by S3's clock in seconds since the epoch."""
    launch = read_launch(stage, job)
    state, ended = first_end(stage, job, launch.time)
    nothing = f"The training job {job} has left no model"
    if ended is None:
        raise NotReadyError(f"{nothing}: it has not ended.", f"Follow it to its end: kennel train --follow {job}")
    if state == FAILED:
        raise NotReadyError(f"{nothing} (state {state}).", f"Try again: kennel train --resume {job}")
    began = launch.time.timestamp()
    seconds = launch.job.max_runtime_seconds + Ec2TrainingSettings.SHUTDOWN_MARGIN_SECONDS
    return began, min(began + seconds, ended.timestamp())


def first_end(stage: Stage, job: str, launched: datetime) -> tuple[str, datetime | None]:
    """Return how and when (None: not yet) a job has first ended since its launch; what came later is not its own."""
    key = status_key(TRAINING_OUTPUT, job)
    end = None
    for version in reversed(s3_versions(stage, key)):
        time = version["LastModified"]
        if time < launched:
            continue
        if end is not None and time > launched + timedelta(seconds=1):
            break
        with aws_errors():
            answer = stage.client("s3").get_object(Bucket=stage.data_bucket, Key=key, VersionId=version["VersionId"])
        status = _parse_status(answer)
        if status is not None and status.state == LAUNCHING:  # S3's times are whole seconds: that end was before
            end = None
        elif status is not None and end is None and status.state in (COMPLETED, FAILED, STOPPED):
            end = status.state, time
    return end or ("Training", None)


def _parse_status(answer: dict[str, Any]) -> Status | None:
    try:
        return _STATUS.validate_json(answer["Body"].read(_MAX_STATUS_BYTES))
    except ValidationError:
        return None


def _get(stage: Stage, job: str, key: str) -> dict[str, Any]:
    with aws_errors(missing=NotReadyError(f"There is no training job {job!r} on EC2 in this stage.")):
        answer: dict[str, Any] = stage.client("s3").get_object(Bucket=stage.data_bucket, Key=key)
    return answer


def _put_json(stage: Stage, key: str, text: str, metadata: dict[str, str]) -> None:
    body = {"Body": text.encode(), "ContentType": "application/json", "Metadata": metadata}
    stage.client("s3").put_object(Bucket=stage.data_bucket, Key=key, **body)
