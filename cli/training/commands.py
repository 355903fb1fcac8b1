"""`kennel train`: start a training, follow it, stop it, go on with it; on SageMaker or on EC2."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli.aws import Stage, announce
from cli.console import console
from cli.data.commands import SAMPLE_DIR
from cli.errors import UsageError
from cli.training import ec2, sagemaker
from cli.training.ec2_jobs import is_ec2_job
from cli.training.hyperparameters import parse_hyperparameters
from cli.training.job_names import job_name
from cli.tuning.jobs import best_hyperparameters


def train(
    context: typer.Context,
    tuning_job: Annotated[
        str | None, typer.Argument(metavar="JOB", help="With --best: which tuning job. Default: the newest.")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="With the best values of a tuning job; --set wins.")] = False,
    data: Annotated[str, typer.Option(help="Name of the data set in the bucket.")] = SAMPLE_DIR.name,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A hyperparameter: python -m model.train --help lists them."),
    ] = None,
    instance_type: Annotated[str | None, typer.Option(help="Default: the stage's settings.")] = None,
    instances: Annotated[
        int | None, typer.Option(min=1, max=20, help="Machines that share one training. Default: the settings.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Follow the job's log until it ends.")] = True,
    follow: Annotated[str | None, typer.Option(metavar="JOB", help="Start nothing: follow this job.")] = None,
    stop: Annotated[str | None, typer.Option(metavar="JOB", help="Start nothing: stop this job.")] = None,
    on: Annotated[
        Literal["sagemaker", "ec2"], typer.Option(help="A SageMaker job, or one EC2 instance.")
    ] = "sagemaker",
    spot: Annotated[bool | None, typer.Option(help="EC2: spare capacity. Default: the stage's settings.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="JOB", help="EC2: another instance goes on with it.")] = None,
) -> None:
    """Train on SageMaker, or on an EC2 instance that ends itself."""
    stage: Stage = context.obj
    for named in (tuning_job, follow, stop, resume):
        if named is not None:
            job_name(named)
    if tuning_job and not best:
        raise UsageError(f"What is {tuning_job!r}? A tuning job goes with --best.", "kennel train --best JOB")
    # Options that would be ignored: those of a new training beside an earlier one's, and two of the latter.
    given = [option for option, job in (("--follow", follow), ("--stop", stop), ("--resume", resume)) if job]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} do not go together.", "Give one of them.")
    machine = instance_type is not None or spot is not None
    if given and (best or set_ or (machine and not resume)):
        raise UsageError(
            f"{given[0]} takes a training as it was started: --set and --best are for new ones, machines for --resume.",
            f"Leave them out, or leave out {given[0]}.",
        )
    on_ec2 = on == "ec2" or is_ec2_job(stage, follow or stop or resume or "")
    if on_ec2 and instances is not None:
        raise UsageError("--instances is for SageMaker: on EC2 one instance trains.", "Leave out --on ec2")
    if not on_ec2 and (resume or spot is not None):
        raise UsageError("--resume and --spot are for trainings on EC2.", "Add --on ec2")
    place = ec2 if on_ec2 else sagemaker
    hyperparameters = parse_hyperparameters(set_ or [])
    if best:
        hyperparameters = {**best_hyperparameters(stage, tuning_job), **hyperparameters}
    if not follow:
        announce(stage)
    if stop:
        place.stop_training(stage, stop)
        console.print(f"{stop} is stopping; what it has learned so far is kept.")
        return
    if resume:
        ec2.resume_training(stage, resume, instance_type, spot)
    request = sagemaker.TrainingRequest(data, hyperparameters, instance_type, instances, spot)
    job = follow or resume or place.start_training(stage, request)
    if not wait and not follow:
        console.print(f"Follow it: kennel train --follow {job}")
        return
    place.follow_training(stage, job)
    console.print("Next: kennel package, then kennel deploy")
