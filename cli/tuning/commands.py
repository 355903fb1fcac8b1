"""`kennel tune`: a SageMaker tuning job, watched until it ends."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

from cli.aws import Stage, announce
from cli.console import AsJson, console, show
from cli.data.commands import SAMPLE_DIR
from cli.errors import aws_errors
from cli.training.hyperparameters import parse_hyperparameters
from cli.training.sagemaker import TrainingRequest, training_price
from cli.tuning.jobs import latest_tuning_job, read_tuning
from cli.tuning.request import TuningRequest, tuning_job_request
from cli.tuning.watching import watch_tuning
from infra.job_names import tuning_job_name

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def tune(
    context: typer.Context,
    data: Annotated[str, typer.Option(help="Name of the data set in the bucket.")] = SAMPLE_DIR.name,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A fixed hyperparameter: not searched.")
    ] = None,
    strategy: Annotated[
        Literal["bayesian", "random", "hyperband"] | None, typer.Option(help="Default: the stage's settings.")
    ] = None,
    max_jobs: Annotated[int | None, typer.Option(min=1, max=750, help="Training jobs. Default: the settings.")] = None,
    parallel: Annotated[int | None, typer.Option(min=1, max=100, help="At a time. Default: the settings.")] = None,
    early_stopping: Annotated[
        bool | None, typer.Option(help="End what does worse than the median. Hyperband has its own way.")
    ] = None,
    warm_start: Annotated[
        list[str] | None, typer.Option(metavar="JOB", help="An earlier job to go on from; up to five.")
    ] = None,
    instance_type: Annotated[str | None, typer.Option(help="Default: the stage's settings.")] = None,
    instances: Annotated[
        int | None, typer.Option(min=1, max=20, help="Machines for each training job. Default: the settings.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed tries much the same values.")] = None,
    wait: Annotated[bool, typer.Option(help="Watch the job until it ends.")] = True,
) -> None:
    """Search for the best hyperparameters with a tuning job."""
    if context.invoked_subcommand is not None:
        return
    stage: Stage = context.obj
    given: dict[str, Any] = {"strategy": strategy, "max_jobs": max_jobs, "parallel_jobs": parallel}
    given["early_stopping"] = early_stopping
    asked = {name: value for name, value in given.items() if value is not None}
    settings = replace(stage.settings.training.tuning, **asked)
    training = TrainingRequest(data, parse_hyperparameters(set_ or []), instance_type, instances)
    job = start_tuning(stage, TuningRequest(training, settings, seed, warm_start or ()))
    if wait:
        watch_tuning(stage, job)
    else:
        console.print(f"Watch it: kennel tune status {job}")


@app.command()
def status(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="Default: the stage's newest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a tuning job, live while it runs, and its result.

    With --json it shows how the job stands, and does not wait.
    """
    stage: Stage = context.obj
    job = job or latest_tuning_job(stage)
    if as_json:
        show(asdict(read_tuning(stage, job)))
    else:
        watch_tuning(stage, job)


@app.command()
def stop(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="Default: the newest that runs.")] = None,
) -> None:
    """Stop a tuning job; what its training jobs have found is kept."""
    stage: Stage = context.obj
    announce(stage)
    job = job or latest_tuning_job(stage, "InProgress")
    with aws_errors():
        stage.client("sagemaker").stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=job)
    console.print(f"{job} is stopping; its result so far: kennel tune status {job}")


def start_tuning(stage: Stage, request: TuningRequest) -> str:
    """Say what it costs and start a tuning job; return its name."""
    job = tuning_job_name(stage.settings, datetime.now(UTC))
    with aws_errors():
        tuning_job = tuning_job_request(stage, request, job)
        announce(stage)
        console.print(_price(tuning_job))
        stage.client("sagemaker").create_hyper_parameter_tuning_job(Tags=stage.tag_list, **tuning_job)
    return job


def _price(tuning_job: dict[str, Any]) -> str:
    """Say what a search varies and runs on, and the most that it can cost in an hour and in all."""
    limits = tuning_job["HyperParameterTuningJobConfig"]["ResourceLimits"]
    jobs, at_once = limits["MaxNumberOfTrainingJobs"], limits["MaxParallelTrainingJobs"]
    definition = tuning_job["TrainingJobDefinition"]
    resources = definition["ResourceConfig"]
    ranges = itertools.chain(*tuning_job["HyperParameterTuningJobConfig"]["ParameterRanges"].values())
    searched = [
        f"{one['Name']} {', '.join(one['Values']) if 'Values' in one else one['MinValue'] + ' to ' + one['MaxValue']}"
        for one in ranges
    ]
    return (
        f"Tuning job {tuning_job['HyperParameterTuningJobName']}: {jobs} training jobs, at most {at_once} at once, "
        f"each on {resources['InstanceCount']} × {resources['InstanceType']}.\n"
        f"Searched: {'; '.join(searched)}.\n"
        f"With {at_once} at once: {training_price(definition, jobs=jobs, at_once=at_once)}."
    )
