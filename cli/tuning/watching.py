"""Watching a tuning job until it ends: the table of its training jobs, then its result and its charts."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Group
from rich.table import Table

from cli.aws import ROOT, Stage
from cli.console import console, progress_bar
from cli.data.commands import SAMPLE_DIR
from cli.errors import WorkFailedError
from cli.training.hyperparameters import DATA_SET, chosen, decode
from cli.training.job_names import job_path
from cli.tuning.jobs import ENDED, Tuning, assignments, objective, read_tuning

CHARTS = ROOT / "build" / "tuning"
_POLL_SECONDS = 1.0


def watch_tuning(stage: Stage, job: str) -> Tuning:
    """Show a tuning job until it ends, then its result; return it. A failed one is a WorkFailedError."""
    try:
        tuning = _watch(stage, job)
    except KeyboardInterrupt:
        console.print(f"\nThe tuning job goes on. Watch it: kennel tune status {job}  Stop it: kennel tune stop {job}")
        raise
    if tuning.status == "Failed":
        reason = tuning.description.get("FailureReason", "no reason was given")
        failed = next((one for one in tuning.jobs if "FailureReason" in one), None)
        hint = f"The first one that failed is {failed['TrainingJobName']}: {failed['FailureReason']}" if failed else ""
        raise WorkFailedError(f"The tuning job {job} failed: {reason}", hint)
    _show_result(tuning)
    return tuning


def _watch(stage: Stage, job: str) -> Tuning:
    """Print a line for each training job that has ended, and the table at the end."""
    tuning, told = read_tuning(stage, job), set[str]()
    with progress_bar(job, tuning.max_jobs) as report:
        while True:
            told |= _tell_ended(tuning, told)
            report(len(told))
            if tuning.status in ENDED:
                break
            time.sleep(_POLL_SECONDS)
            tuning = read_tuning(stage, job)
    console.print(tuning_table(tuning))
    return tuning


def _tell_ended(tuning: Tuning, told: set[str]) -> set[str]:
    """Print a line for each training job that has ended and is not in `told`; return their names."""
    ended = [j for j in tuning.jobs if j["TrainingJobStatus"] in ENDED and j["TrainingJobName"] not in told]
    for job in ended:
        result = objective(job)
        reached = f"{tuning.metric} {result:.4f}" if result is not None else "no result"
        values = assignments(chosen(job["TunedHyperParameters"]))
        console.print(f"  {_number(tuning, job)}  {job['TrainingJobStatus']}, {reached}: {values}", style="dim")
    return {job["TrainingJobName"] for job in ended}


def tuning_table(tuning: Tuning) -> Group:
    """Show the training jobs, what they tried and what they reached; the best one in bold."""
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
