"""The names of a stage's jobs; `infra.job_names` says how they are made."""

from __future__ import annotations

from datetime import UTC, datetime

from cli.aws import Stage
from infra import job_names


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
