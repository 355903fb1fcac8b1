"""The names of a stage's jobs; `infra.job_names` says how they are made."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from cli.aws import Stage
from cli.errors import NotReadyError, UsageError
from infra import job_names

_NAME = re.compile(r"[A-Za-z0-9](-*[A-Za-z0-9]){0,62}")  # what SageMaker allows


def job_prefix(stage: Stage) -> str:
    """What the names of this stage's jobs begin with."""
    return job_names.job_prefix(stage.settings)


def tuning_prefix(stage: Stage) -> str:
    """What the names of this stage's tuning jobs, and of the training jobs that they start, begin with."""
    return job_names.tuning_prefix(stage.settings)


def job_prefixes(stage: Stage) -> list[str]:
    """What the names of all jobs of this stage begin with, one or the other."""
    return [pattern.removesuffix("*") for pattern in job_names.job_patterns(stage.settings)]


def new_tuning_job(stage: Stage) -> str:
    """A name for a tuning job that begins now."""
    return job_names.tuning_job_name(stage.settings, datetime.now(UTC))


def is_job_name(text: str) -> bool:
    """Whether this can be the name of a job: letters, digits and hyphens, so neither a path nor a part of one."""
    return _NAME.fullmatch(text) is not None


def job_name(text: str) -> str:
    """Give the name of a job back.

    Raises
    ------
    UsageError
        When it cannot be one.
    """
    if not is_job_name(text):
        raise UsageError(f"{text!r} is not the name of a job: letters, digits and hyphens, at most 63.")
    return text


def job_path(folder: Path, job: str, suffix: str = "") -> Path:
    """Say where something of a job goes on this machine: directly in the folder, whatever a listing calls the job.

    Every local path that is made of a remote name is made here.

    Raises
    ------
    UsageError
        When it cannot be the name of a job.
    NotReadyError
        When a link is there, which could lead anywhere.
    """
    path = folder / f"{job_name(job)}{suffix}"
    if path.is_symlink():
        raise NotReadyError(f"{path} is a link, so nothing is written there.", "Remove it, or choose another folder.")
    return path
