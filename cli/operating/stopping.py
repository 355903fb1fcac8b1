"""The jobs of a stage that run: finding them, and stopping them all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import botocore.exceptions

from cli.aws import Stage
from cli.console import console, progress_bar
from cli.errors import WorkFailedError
from cli.training.job_names import job_prefixes

_JOBS = {
    "hyper_parameter_tuning": "HyperParameterTuningJob",  # first: one that runs starts further training jobs
    "training": "TrainingJob",
    "transform": "TransformJob",
}
_POLL_SECONDS = 5.0
_STOP_SECONDS = 15 * 60  # SageMaker gives a program two minutes, and then uploads what it has left


def stop_jobs(stage: Stage) -> int:
    """Stop the stage's searches, trainings and batches and wait until they have ended, in whatever way; how many.

    Raises
    ------
    WorkFailedError
        When some have not ended after 15 minutes.
    """
    sagemaker, seen, deadline = stage.client("sagemaker"), set[tuple[str, str]](), time.monotonic() + _STOP_SECONDS
    with progress_bar("Waiting until the jobs have stopped") as report:
        while running := [job for kind in _JOBS for job in running_jobs(stage, kind)]:
            for kind, name, status in running:
                if status == "InProgress" and (kind, name) not in seen:
                    console.print(f"Stopping the {kind.replace('hyper_parameter_', '')} job {name}")
                    _stop(sagemaker, kind, name)
                seen.add((kind, name))
            if time.monotonic() > deadline:
                names = ", ".join(name for _, name, _ in running)
                raise WorkFailedError(f"{names}: not ended {_STOP_SECONDS / 60:.0f} minutes after being stopped.")
            report(len(seen) - len(running))
            time.sleep(_POLL_SECONDS)
    return len(seen)


def running_jobs(stage: Stage, kind: str) -> Iterator[tuple[str, str, str]]:
    """Kind, name and status of those jobs of a kind (see `_JOBS`) that have not ended."""
    pages, member = stage.client("sagemaker").get_paginator(f"list_{kind}_jobs"), _JOBS[kind]
    for prefix, status in product(job_prefixes(stage), ("InProgress", "Stopping")):
        for page in pages.paginate(NameContains=prefix, StatusEquals=status):
            names = [job[f"{member}Name"] for job in page[f"{member}Summaries"]]
            yield from ((kind, name, status) for name in names if name.startswith(prefix))


def _stop(sagemaker: Any, kind: str, name: str) -> None:
    try:
        getattr(sagemaker, f"stop_{kind}_job")(**{f"{_JOBS[kind]}Name": name})
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":  # it has ended by itself meanwhile
            raise
