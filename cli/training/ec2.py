"""`kennel train --on ec2`: one training on an EC2 instance that ends itself.

The launch template of the training stack says what runs; a description in the bucket, named by a tag of the instance,
says what is trained; the instance answers with a status object and the outputs that a SageMaker job would leave.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import botocore.exceptions

from cli.aws import Stage
from cli.console import console, progress_bar
from cli.data.push import data_set_prefix
from cli.errors import NotReadyError, UsageError, WorkFailedError, aws_errors
from cli.prices import hourly_price
from cli.training.ec2_instances import live_instances, run_instance
from cli.training.ec2_jobs import first_end, name_prefix, read_launch, read_status, write_launch, write_status
from cli.training.following import JobLog
from cli.training.job_names import new_job
from cli.training.sagemaker import TrainingRequest, require_data_set, training_hyperparameters, upload_source
from infra import instance_types
from infra.bucket_layout import CHECKPOINTS, EC2_JOBS, TRAINING_OUTPUT
from infra.settings import Ec2TrainingSettings
from programs.ec2_training.training_instance.job import (
    COMPLETED,
    ENDED,
    FAILED,
    INTERRUPTED,
    JOB_TAG,
    Job,
    Status,
    stop_key,
)

_POLL_SECONDS = 1.0
_LOOK_SECONDS = 5.0
#: EC2 shows a new instance, and the instance its first status, only after a while.
_APPEARS_SECONDS = 90.0


@dataclass(frozen=True)
class Machine:
    """What to launch; None: the stage's settings."""

    instance_type: str | None = None
    spot: bool | None = None


def start_training(stage: Stage, request: TrainingRequest, machine: Machine) -> str:
    """Describe a job in the bucket and launch an instance for it; return the job's name."""
    settings = _settings(stage, machine)
    bucket = stage.data_bucket
    stage.output("training", "TrainingLaunchTemplateId")  # before anything is uploaded
    with aws_errors():
        hyperparameters = training_hyperparameters(stage, request, settings.max_runtime_seconds)
        require_data_set(stage, request.data_set)
        name = new_job(name_prefix(stage))
        job = Job(
            name=name,
            source=upload_source(stage),
            channels={"training": f"s3://{bucket}/{data_set_prefix(request.data_set)}"},
            hyperparameters=hyperparameters,
            output=f"s3://{bucket}/{TRAINING_OUTPUT}/{name}",
            checkpoints=f"s3://{bucket}/{CHECKPOINTS}/{name}/",
            max_runtime_seconds=settings.max_runtime_seconds,
        )
    _launch(stage, job, machine)
    return name


def resume_training(stage: Stage, job: str, machine: Machine) -> str:
    """Launch another instance for a job that has not been completed; it resumes at the checkpoints.

    The instance is of the type that the job had, unless `machine` names another.
    """
    _settings(stage, machine)
    if first_end(stage, job, read_launch(stage, job).time)[0] == COMPLETED:
        raise NotReadyError(f"{job} is completed.", f"Package it: kennel package --job {job}")
    with aws_errors():
        if live_instances(stage, job):
            raise NotReadyError(f"An instance is training {job}.", f"Follow it: kennel train --follow {job}")
        stage.client("s3").delete_object(Bucket=stage.data_bucket, Key=stop_key(EC2_JOBS, job))
    _launch_again(stage, job, machine)
    return job


def stop_training(stage: Stage, job: str) -> None:
    """Ask the instance of a job to let the program save what it has, upload it and end."""
    status = read_status(stage, job)
    with aws_errors():
        if status["state"] in ENDED and not live_instances(stage, job):  # the status alone is the training's own word
            raise NotReadyError(f"{job} has ended already ({status['state']}).")
        stage.client("s3").put_object(Bucket=stage.data_bucket, Key=stop_key(EC2_JOBS, job), Body=b"")


def follow_training(stage: Stage, job: str, machine: Machine | None = None) -> dict[str, Any]:
    """Print a job's log until it ends; return its status.

    When AWS takes a spot instance back meanwhile, another one is launched as soon as that one is gone.
    """
    log = JobLog(stage, job, stage.output("training", "TrainingInstanceLogGroup"))
    with progress_bar(f"{job}: Training"), aws_errors():
        while True:
            status = _wait_for_end(stage, job, log)
            if status["state"] != INTERRUPTED:
                break
            console.print(f"{status['reason']} The next instance goes on from the checkpoints.")
            _wait_until_gone(stage, job)
            # Only spot instances are taken back; the next one is like it, but for what is asked for now.
            asked = machine or Machine()
            _launch_again(stage, job, Machine(asked.instance_type, asked.spot is not False))
    reason = status["reason"] or "no reason was given"
    log.require_completed(status["state"], reason, f"  Try again: kennel train --resume {job}")
    console.print(f"{job} completed in {status['ended'] - status['started']:.0f} s; its instance ends itself.")
    return status


def _wait_for_end(stage: Stage, job: str, log: JobLog) -> dict[str, Any]:
    """Print the log until the status says that the job has ended, or its instance is gone."""
    look_at = 0.0
    while True:
        gone = False  # asked before the status, which may name an end between the two
        if time.monotonic() > look_at and time.time() > read_status(stage, job)["started"] + _APPEARS_SECONDS:
            look_at = time.monotonic() + _LOOK_SECONDS
            gone = not live_instances(stage, job)
        status = read_status(stage, job)
        log.print_new()
        if status["state"] in ENDED:
            return status
        if gone:
            raise WorkFailedError(
                f"The instance of {job} is gone without saying why; the last that it reported was {status['state']}.",
                f"For about an hour, aws ec2 describe-instances --filters Name=tag:{JOB_TAG},Values={job} names it and "
                "aws ec2 get-console-output --instance-id INSTANCE shows what it has written. "
                f"Another instance resumes at its checkpoints: kennel train --resume {job}",
            )
        time.sleep(_POLL_SECONDS)


def _wait_until_gone(stage: Stage, job: str) -> None:
    """Wait until EC2 itself says that no instance trains a job.

    That one was taken back is what the job's status says, which any training can write: it must not start a second one.
    """
    appears = read_launch(stage, job).time.timestamp() + _APPEARS_SECONDS
    while time.time() < appears or live_instances(stage, job):
        time.sleep(_LOOK_SECONDS)


def _launch_again(stage: Stage, job: str, machine: Machine) -> None:
    """Launch an instance like the last one, but for what is asked for now."""
    last = read_launch(stage, job)
    _launch(stage, last.job, Machine(machine.instance_type or last.instance_type, machine.spot))


def _launch(stage: Stage, job: Job, machine: Machine) -> None:
    """Say what is started, what it costs and when it ends at the latest, and launch an instance."""
    settings = _settings(stage, machine)
    instance_type = machine.instance_type or settings.instance_type
    spot = settings.spot if machine.spot is None else machine.spot
    price = f"{'spot: less than ' if spot else ''}{hourly_price(instance_type)}"
    if instance_types.is_burstable(instance_type):
        price += "; up to 0.05 USD per vCPU-hour more for CPU above its baseline"
    console.print(
        f"Training job {job.name} on 1 × {instance_type} ({price}). "
        f"The instance ends itself, after {settings.shutdown_minutes} minutes at the latest."
    )
    with aws_errors():
        write_launch(stage, job, instance_type)  # before the instance can report anything
        try:
            instance_id = run_instance(stage, job.name, instance_type, spot)
        except botocore.exceptions.ClientError as error:
            reason = f"EC2 refused to launch an instance: {error}"
            write_status(stage, Status(job.name, "", instance_type, state=FAILED, reason=reason))
            raise
    console.print(f"Instance {instance_id}. A shell on it: aws ssm start-session --target {instance_id}")


def _settings(stage: Stage, machine: Machine) -> Ec2TrainingSettings:
    """Return the stage's settings; refuse a stage without them, and a machine that cannot run their image."""
    settings = stage.settings.training.ec2
    if settings is None:
        raise NotReadyError(
            f"The stage {stage.name!r} has no EC2 training.",
            f"Add the section [training.ec2] to {stage.settings_file}, then: kennel deploy training",
        )
    if (instance_type := machine.instance_type) is not None:
        if instance_type not in instance_types.ec2():
            raise UsageError(f"{instance_type!r} is not an EC2 instance type, such as t3.xlarge or g4dn.xlarge.")
        if conflict := settings.conflict_with(instance_type):
            raise UsageError(f"{conflict}.", "Choose a type of the image's architecture, such as t3.xlarge.")
    return settings
