"""`kennel train --on ec2`: one training on an EC2 instance that ends itself.

The launch template of the training stack says what runs; a description in the bucket, named by a tag of the instance,
says what is trained; the instance answers with a status object and the outputs that a SageMaker job would leave.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import botocore.exceptions

from cli.aws import Stage
from cli.console import console, progress_bar
from cli.costs.table import job_price
from cli.data.push import data_set_prefix
from cli.errors import NotReadyError, UsageError, WorkFailedError, aws_errors
from cli.training.ec2_instances import live_instances, run_instance
from cli.training.ec2_jobs import first_end, name_prefix, read_launch, read_status, write_launch, write_status
from cli.training.following import JobLog
from cli.training.hyperparameters import planned_epochs
from cli.training.job_names import new_job
from cli.training.sagemaker import TrainingRequest, training_hyperparameters, upload_source
from infra import instance_types
from infra.bucket_layout import CHECKPOINTS, EC2_JOBS, TRAINING_OUTPUT
from infra.settings import Ec2TrainingSettings
from infra.validation import SettingsError, read_table
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
#: EC2 shows a new instance only after a while.
_APPEARS_SECONDS = 90.0


def start_training(stage: Stage, request: TrainingRequest) -> str:
    """Describe a job in the bucket and launch an instance for it; return the job's name."""
    settings = _settings(stage, request.instance_type, request.spot)
    bucket = stage.data_bucket
    stage.output("training", "TrainingLaunchTemplateId")  # before anything is uploaded
    with aws_errors():
        most = settings.max_runtime_seconds
        hyperparameters = training_hyperparameters(stage, request, instances=1, max_runtime=most)
        name = new_job(name_prefix(stage))
        job = Job(
            name=name,
            source=upload_source(stage),
            channels={"training": f"s3://{bucket}/{data_set_prefix(request.data_set)}"},
            hyperparameters=hyperparameters,
            output=f"s3://{bucket}/{TRAINING_OUTPUT}/{name}",
            checkpoints=f"s3://{bucket}/{CHECKPOINTS}/{name}/",
            max_runtime_seconds=most,
        )
    _launch(stage, job, settings)
    return name


def resume_training(stage: Stage, job: str, instance_type: str | None = None, spot: bool | None = None) -> None:
    """Launch another instance, by default of the same type, for a job that is not completed; it has the checkpoints."""
    last = read_launch(stage, job)
    settings = _settings(stage, instance_type or last.instance_type, spot)
    if first_end(stage, job, last.time)[0] == COMPLETED:
        raise NotReadyError(f"{job} is completed.", f"Package it: kennel package --job {job}")
    with aws_errors():
        if live_instances(stage, job):
            raise NotReadyError(f"An instance is training {job}.", f"Follow it: kennel train --follow {job}")
        stage.client("s3").delete_object(Bucket=stage.data_bucket, Key=stop_key(EC2_JOBS, job))
    _launch(stage, last.job, settings)


def stop_training(stage: Stage, job: str) -> None:
    """Ask the instance of a job to let the program save what it has, upload it and end."""
    status = read_status(stage, job)
    with aws_errors():
        if status.state in ENDED and not live_instances(stage, job):  # the status alone is the training's own word
            raise NotReadyError(f"{job} has ended already ({status.state}).")
        stage.client("s3").put_object(Bucket=stage.data_bucket, Key=stop_key(EC2_JOBS, job), Body=b"")


def follow_training(stage: Stage, job: str) -> Status:
    """Print a job's log until it ends; return its status.

    When AWS takes a spot instance back meanwhile, another one is launched as soon as EC2 itself says that that one is
    gone: any training can write a status, and must not start a second instance by it.
    """
    log = JobLog(stage, job, stage.output("training", "TrainingInstanceLogGroup"))
    launched = read_launch(stage, job)
    price = f"{job_price(launched.instance_type)}; the instance ends itself"
    epochs = planned_epochs(launched.job.hyperparameters)
    with aws_errors(), log.goes_on(price), progress_bar(job, epochs) as report:
        while True:
            appears = read_launch(stage, job).time.timestamp() + _APPEARS_SECONDS
            # Asked before the status, which may name an end between the two.
            has_instance = time.time() < appears or bool(live_instances(stage, job))
            status = read_status(stage, job)
            log.print_new()
            report(log.epoch)
            if status.state == INTERRUPTED and not has_instance:
                console.print(f"{status.reason} The next instance goes on from the checkpoints.")
                last = read_launch(stage, job)
                _launch(stage, last.job, _settings(stage, last.instance_type, spot=True))  # only these are taken back
            elif status.state in ENDED and status.state != INTERRUPTED:
                break
            elif not has_instance:
                raise WorkFailedError(
                    f"The instance of {job} is gone without saying why; the last that it reported was {status.state}.",
                    f"For about an hour, aws ec2 describe-instances --filters Name=tag:{JOB_TAG},Values={job} names it "
                    "and aws ec2 get-console-output --instance-id INSTANCE shows what it has written. "
                    f"Another instance resumes at its checkpoints: kennel train --resume {job}",
                )
            time.sleep(_POLL_SECONDS)
    again = f"  Try again: kennel train --resume {job}"
    log.require_completed(status.state, status.reason or "no reason was given", again)
    console.print(f"{job} completed; its instance ends itself.")
    return status


def _launch(stage: Stage, job: Job, settings: Ec2TrainingSettings) -> None:
    """Say what is started, what it costs and when it ends at the latest, and launch an instance."""
    instance_type = settings.instance_type
    price = job_price(instance_type, volume_gb=settings.volume_gb, seconds=60 * settings.shutdown_minutes)
    price += "; spot capacity, billed below that" if settings.spot else ""
    if instance_types.is_burstable(instance_type):
        price += "; up to 0.05 USD per vCPU-hour more for CPU above its baseline"
    console.print(
        f"Training job {job.name} on 1 × {instance_type} ({price}). "
        f"The instance ends itself, after {settings.shutdown_minutes} minutes at the latest."
    )
    with aws_errors():
        write_launch(stage, job, instance_type)  # before the instance can report anything
        try:
            instance_id = run_instance(stage, job.name, instance_type, settings.spot)
        except botocore.exceptions.ClientError as error:
            reason = f"EC2 refused to launch an instance: {error}"
            write_status(stage, Status(job.name, "", instance_type, state=FAILED, reason=reason))
            raise
    console.print(f"Instance {instance_id}. A shell on it: aws ssm start-session --target {instance_id}")


def _settings(stage: Stage, instance_type: str | None, spot: bool | None) -> Ec2TrainingSettings:
    """Return the stage's settings with what is asked for in their place; refuse what cannot run."""
    settings = stage.settings.training.ec2
    if settings is None:
        raise NotReadyError(
            f"The stage {stage.name!r} has no EC2 training.",
            f"Add the section [training.ec2] to {stage.settings_file}, then: kennel deploy training",
        )
    asked = {"instance_type": instance_type, "spot": spot}
    given = {name: value for name, value in asked.items() if value is not None}
    try:
        return read_table(Ec2TrainingSettings, {**asdict(settings), **given})
    except SettingsError as error:
        raise UsageError(f"The training cannot be started: {error}") from error
