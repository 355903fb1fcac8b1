"""`kennel tune`: a SageMaker tuning job, watched until it ends."""

from __future__ import annotations

import time
from contextlib import nullcontext
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table

from cli.aws import ROOT, Stage, announce
from cli.console import console
from cli.data.commands import SAMPLE_DIR
from cli.errors import UsageError, WorkFailedError, aws_errors
from cli.prices import hourly_price, most_expensive
from cli.training.hyperparameters import DATA_SET, chosen, decode, parse_hyperparameters
from cli.training.job_names import job_path, new_tuning_job
from cli.training.sagemaker import TrainingRequest
from cli.tuning.jobs import ENDED, Tuning, assignments, latest_tuning_job, objective, read_tuning, tell_of_better_parent
from cli.tuning.request import TuningRequest, tuning_job_request

app = typer.Typer(
    invoke_without_command=True,
    help="Search for the best hyperparameters with a SageMaker tuning job.",
    rich_markup_mode=None,
)

CHARTS = ROOT / "build" / "tuning"
_POLL_SECONDS = 1.0
_JobArgument = Annotated[str | None, typer.Argument(metavar="JOB", help="Default: the stage's newest.")]


class Strategy(StrEnum):
    """How the next values are chosen."""

    BAYESIAN = "bayesian"
    RANDOM = "random"
    HYPERBAND = "hyperband"


@app.callback()
def tune(
    context: typer.Context,
    data: Annotated[str, typer.Option(help="Name of the data set in the bucket.")] = SAMPLE_DIR.name,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A fixed hyperparameter: not searched.")
    ] = None,
    strategy: Annotated[Strategy | None, typer.Option(help="Default: the stage's settings.")] = None,
    max_jobs: Annotated[int | None, typer.Option(min=1, max=750, help="Training jobs. Default: the settings.")] = None,
    parallel: Annotated[int | None, typer.Option(min=1, max=100, help="At a time. Default: the settings.")] = None,
    early_stopping: Annotated[
        bool | None, typer.Option(help="End what does worse than the median. Default: the settings.")
    ] = None,
    warm_start: Annotated[
        list[str] | None, typer.Option(metavar="JOB", help="Go on from an earlier tuning job; up to five.")
    ] = None,
    instance_type: Annotated[str | None, typer.Option(help="Default: the stage's settings.")] = None,
    instances: Annotated[
        int | None, typer.Option(min=1, max=20, help="Machines for each training job. Default: the settings.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed tries much the same values.")] = None,
    wait: Annotated[bool, typer.Option(help="Watch the job until it ends.")] = True,
) -> None:
    """Search for the best hyperparameters with a SageMaker tuning job."""
    if context.invoked_subcommand is not None:
        return
    stage: Stage = context.obj
    request = TuningRequest(
        TrainingRequest(data, parse_hyperparameters(set_ or []), instance_type, instances),
        strategy,
        max_jobs,
        parallel,
        early_stopping,
        seed,
        tuple(warm_start or ()),
    )
    job = start_tuning(stage, request)
    if wait:
        watch_tuning(stage, job)
    else:
        console.print(f"Watch it: kennel tune status {job}")


@app.command()
def status(context: typer.Context, job: _JobArgument = None) -> None:
    """Show a tuning job, live while it runs; when it has ended, its result and charts of it."""
    stage: Stage = context.obj
    watch_tuning(stage, job or latest_tuning_job(stage))


@app.command()
def stop(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="Default: the newest that runs.")] = None,
) -> None:
    """Stop a tuning job and the training jobs that it runs; what they have found is kept."""
    stage: Stage = context.obj
    announce(stage)
    job = job or latest_tuning_job(stage, "InProgress")
    with aws_errors():
        stage.client("sagemaker").stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=job)
    console.print(f"{job} is stopping; its result so far: kennel tune status {job}")


def start_tuning(stage: Stage, request: TuningRequest) -> str:
    """Say what it costs and start a tuning job; returns its name.

    Raises
    ------
    NotReadyError
        When the stacks are not deployed, or the data set is not in the bucket.
    UsageError
        When the request contradicts itself.
    AwsError
        When SageMaker refuses the request.
    """
    if len(request.warm_start) > 5:
        raise UsageError("A tuning job goes on from at most five earlier ones.")
    job = new_tuning_job(stage)
    with aws_errors():
        tuning_job = tuning_job_request(stage, request, job)
        announce(stage)
        console.print(_price(stage, tuning_job))
        stage.client("sagemaker").create_hyper_parameter_tuning_job(**tuning_job)
    return job


def _price(stage: Stage, tuning_job: dict[str, Any]) -> str:
    """What a search runs on, and the most that it can cost in an hour and in all."""
    limits = tuning_job["HyperParameterTuningJobConfig"]["ResourceLimits"]
    resources = tuning_job["TrainingJobDefinition"]["ResourceConfig"]
    jobs, at_once = limits["MaxNumberOfTrainingJobs"], limits["MaxParallelTrainingJobs"]
    instance_type, instances = resources["InstanceType"], resources["InstanceCount"]
    training = stage.settings.training
    hours = jobs * instances * training.max_runtime_seconds / 3600
    spot = "; spot capacity, billed below that" if training.spot else ""
    return (
        f"Tuning job {tuning_job['HyperParameterTuningJobName']}: {jobs} training jobs, at most {at_once} at once, "
        f"each on {instances} × {instance_type}.\n"
        f"Upper bound with {at_once} at once: {hourly_price(instance_type, instances * at_once)}{spot}. "
        f"The whole search: {most_expensive(instance_type, hours)}"
    )


def watch_tuning(stage: Stage, job: str) -> Tuning:
    """Show a tuning job until it ends, then its result; returns it.

    Raises
    ------
    NotReadyError
        When there is no such job.
    WorkFailedError
        When it failed; the message holds SageMaker's reason.
    """
    try:
        tuning = _watch(stage, job)
    except KeyboardInterrupt:
        console.print(f"\nThe tuning job goes on. Watch it: kennel tune status {job}  Stop it: kennel tune stop {job}")
        raise
    if tuning.status == "Failed":
        reason = tuning.description.get("FailureReason", "no reason was given")
        failed = [one for one in tuning.jobs if "FailureReason" in one][:1]
        hints = [f"The first one that failed is {one['TrainingJobName']}: {one['FailureReason']}" for one in failed]
        raise WorkFailedError(f"The tuning job {job} failed: {reason}", "".join(hints))
    _show_result(tuning)
    return tuning


def _watch(stage: Stage, job: str) -> Tuning:
    """A live table in a terminal; elsewhere one line for each training job that has ended, and the table at the end."""
    terminal = console.is_terminal
    tuning, told = read_tuning(stage, job), set[str]()
    with Live(tuning_table(tuning), console=console, transient=True) if terminal else nullcontext() as live:
        while True:
            if live is not None:
                live.update(tuning_table(tuning))
            else:
                told |= _tell_ended(tuning, told)
            if tuning.status in ENDED:
                break
            time.sleep(_POLL_SECONDS)
            tuning = read_tuning(stage, job)
    console.print(tuning_table(tuning))
    return tuning


def _tell_ended(tuning: Tuning, told: set[str]) -> set[str]:
    """Print a line for each training job that has ended and is not in `told`; returns their names."""
    ended = [j for j in tuning.jobs if j["TrainingJobStatus"] in ENDED and j["TrainingJobName"] not in told]
    for job in ended:
        result = objective(job)
        reached = f"{tuning.metric} {result:.4f}" if result is not None else "no result"
        values = assignments(chosen(job["TunedHyperParameters"]))
        console.print(f"  {_number(tuning, job)}  {job['TrainingJobStatus']}, {reached}: {values}", style="dim")
    return {job["TrainingJobName"] for job in ended}


def tuning_table(tuning: Tuning) -> Group:
    """The training jobs, what they tried and what they reached; the best one in bold."""
    best = tuning.best
    result = f", best {tuning.metric} {objective(best):.4f}" if best is not None else ""
    of = f" of {tuning.max_jobs}" if tuning.max_jobs else ""
    title = f"{tuning.name}: {tuning.status}, {len(tuning.jobs)}{of} training jobs started{result}"
    table = Table()
    table.add_column("job")
    table.add_column("status")
    for name in tuning.ranges:
        table.add_column(name, justify="right")
    table.add_column(tuning.metric, justify="right")
    table.add_column("seconds", justify="right")
    for job in tuning.jobs:
        value, values = objective(job), job["TunedHyperParameters"]
        is_best = best is not None and job["TrainingJobName"] == best["TrainingJobName"]
        table.add_row(
            _number(tuning, job),
            job["TrainingJobStatus"],
            *(_short(values[name]) for name in tuning.ranges),
            "" if value is None else f"{value:.4f}",
            _seconds(job),
            style="bold green" if is_best else None,
        )
    return Group(title, table)  # a table's own title would be wrapped to its width


def _show_result(tuning: Tuning) -> None:
    if tuning.best is None:
        console.print(f"{tuning.name} ended as {tuning.status} before a training job had a result.")
        return
    from cli.tuning.plot import draw_tuning  # optuna and matplotlib: needed by nothing else

    tried, history = (job_path(CHARTS, tuning.name, suffix) for suffix in (".svg", "-history.svg"))
    draw_tuning(tuning, tried, history)
    values = assignments(chosen(tuning.best["TunedHyperParameters"]))
    console.print(f"Best: {values}, {tuning.metric} {objective(tuning.best):.4f} ({tuning.best['TrainingJobName']})")
    console.print(f"What was tried: {tried}  How the best was found: {history}")
    tell_of_better_parent(tuning)
    data_set = decode(tuning.static).get(DATA_SET) or SAMPLE_DIR.name
    data = f" --data {data_set}" if data_set != SAMPLE_DIR.name else ""
    console.print(f"Train with these values: kennel train --best {tuning.name}{data}")


def _number(tuning: Tuning, job: dict[str, Any]) -> str:
    """A training job's number within its tuning job: ``003`` of ``<tuning job>-003-1a2b3c4d``."""
    return str(job["TrainingJobName"].removeprefix(f"{tuning.name}-").split("-")[0])


def _short(value: str) -> str:
    """A number to four digits; other values as they are."""
    try:
        return value if value.lstrip("-").isdecimal() else f"{float(value):.4g}"
    except ValueError:
        return value


def _seconds(job: dict[str, Any]) -> str:
    start, end = job.get("TrainingStartTime"), job.get("TrainingEndTime")
    return f"{(end - start).total_seconds():.0f}" if start is not None and end is not None else ""
