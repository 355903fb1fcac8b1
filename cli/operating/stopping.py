"""The jobs of a stage that run: finding them, and stopping them all."""

from __future__ import annotations

import time
from collections.abc import Iterator

import botocore.exceptions

from cli.aws import Stage
from cli.console import console, progress_bar
from cli.errors import WorkFailedError
from cli.training.job_names import JOB_KINDS, job_prefixes, list_jobs

_POLL_SECONDS = 5.0
_STOP_SECONDS = 15 * 60  # SageMaker gives a program two minutes, and then uploads what it has left


def stop_jobs(stage: Stage) -> int:
    """Stop the stage's searches, trainings and batches, wait until they have ended in some way, return how many."""
    seen, deadline = set[tuple[str, str]](), time.monotonic() + _STOP_SECONDS
    with progress_bar("Waiting until the jobs have stopped") as report:
        while running := [(kind, *job) for kind in JOB_KINDS for job in running_jobs(stage, kind)]:
            for kind, name, status in running:
                if status == "InProgress" and (kind, name) not in seen:
                    console.print(f"Stopping the {kind.replace('hyper_parameter_', '')} job {name}")
                    _stop(stage, kind, name)
                seen.add((kind, name))
            if time.monotonic() > deadline:
                names = ", ".join(name for _, name, _ in running)
                raise WorkFailedError(f"{names}: not ended {_STOP_SECONDS / 60:.0f} minutes after being stopped.")
            report(len(seen) - len(running))
            time.sleep(_POLL_SECONDS)
    return len(seen)


def running_jobs(stage: Stage, kind: str) -> Iterator[tuple[str, str]]:
    """Yield name and status of those jobs of a kind (see `JOB_KINDS`) that have not ended."""
    for prefix in job_prefixes(stage):
        for status in ("InProgress", "Stopping"):
            yield from ((job[f"{JOB_KINDS[kind]}Name"], status) for job in list_jobs(stage, kind, prefix, status))


def _stop(stage: Stage, kind: str, name: str) -> None:
    try:
        getattr(stage.client("sagemaker"), f"stop_{kind}_job")(**{f"{JOB_KINDS[kind]}Name": name})
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":  # it has ended by itself meanwhile
            raise
