"""Watching a tuning job until it ends: its training jobs, then its result and its charts."""

from __future__ import annotations

import time
from typing import Any

from cli.aws import ROOT, Stage
from cli.console import console, progress_bar
from cli.errors import WorkFailedError, goes_on
from cli.training.hyperparameters import DATA_SET, chosen, decode
from cli.training.job_names import job_path
from cli.training.sagemaker import training_price
from cli.tuning.jobs import ENDED, Tuning, assignments, objective, read_tuning

CHARTS = ROOT / "build" / "tuning"
_POLL_SECONDS = 1.0


def watch_tuning(stage: Stage, job: str) -> Tuning:
    """Show a tuning job until it ends, then its result; return it. A failed one is a WorkFailedError."""
    tuning = _watch(stage, job)
    if tuning.status == "Failed":
        reason = tuning.description.get("FailureReason", "no reason was given")
        failed = next((one for one in tuning.jobs if "FailureReason" in one), None)
        hint = f"The first one that failed is {failed['TrainingJobName']}: {failed['FailureReason']}" if failed else ""
        raise WorkFailedError(f"The tuning job {job} failed: {reason}", hint)
    _show_result(tuning)
    return tuning


def _watch(stage: Stage, job: str) -> Tuning:
    """Print a line for each training job that has ended, and how far the search has come at the end."""
    tuning, told = read_tuning(stage, job), set[str]()
    most = tuning.config["ResourceLimits"].get("MaxNumberOfTrainingJobs")
    at_once = tuning.config["ResourceLimits"]["MaxParallelTrainingJobs"]
    price = training_price(tuning.description["TrainingJobDefinition"], jobs=most or at_once, at_once=at_once)
    follow = f"Watch it: kennel tune status {job}  Stop it: kennel tune stop {job}"
    with goes_on(f"The tuning job {job} goes on ({price}).\n{follow}"), progress_bar(job, most) as report:
        while True:
            for one in tuning.jobs:
                if one["TrainingJobStatus"] in ENDED and one["TrainingJobName"] not in told:
                    _tell_end(tuning, one)
                    told.add(one["TrainingJobName"])
            report(len(told))
            if tuning.status in ENDED:
                break
            time.sleep(_POLL_SECONDS)
            tuning = read_tuning(stage, job)
    result = f", best {tuning.metric} {objective(tuning.best):.4f}" if tuning.best is not None else ""
    of = f" of {most}" if most else ""
    console.print(f"{job}: {tuning.status}, {len(tuning.jobs)}{of} training jobs started{result}")
    return tuning


def _tell_end(tuning: Tuning, job: dict[str, Any]) -> None:
    number = job["TrainingJobName"].removeprefix(f"{tuning.name}-").split("-")[0]  # of <tuning job>-003-1a2b3c4d
    result = objective(job)
    reached = f"{tuning.metric} {result:.4f}" if result is not None else "no result"
    values = assignments(chosen(job["TunedHyperParameters"]))
    console.print(f"  {number}  {job['TrainingJobStatus']}, {reached}: {values}", style="dim")


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
    data_set = decode(tuning.static).get(DATA_SET)
    data = f" --data {data_set}" if data_set else ""
    console.print(f"Train with these values: kennel train --best {tuning.name}{data}")
