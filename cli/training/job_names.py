"""A stage's jobs by their names; `infra.job_names` says how these are made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.aws import Stage
from cli.errors import NotReadyError, UsageError
from infra import job_names

_NAME = re.compile(r"[A-Za-z0-9](-*[A-Za-z0-9]){0,62}")  # what SageMaker allows
#: The kinds of SageMaker jobs, as operations and as answers name them; first the kind that starts jobs of another.
JOB_KINDS = {
    "hyper_parameter_tuning": "HyperParameterTuningJob",
    "training": "TrainingJob",
    "transform": "TransformJob",
}


def job_prefix(stage: Stage) -> str:
    """Return what the names of this stage's jobs begin with."""
    return job_names.job_prefix(stage.settings)


def job_prefixes(stage: Stage) -> list[str]:
    """Return what the names of all jobs of this stage begin with, one or the other."""
    return [pattern.removesuffix("*") for pattern in job_names.job_patterns(stage.settings)]


def new_job(prefix: str) -> str:
    """Return a name for a training job that begins now."""
    return f"{prefix}{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"[:63]


def list_jobs(stage: Stage, kind: str, prefix: str, status: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the summaries of the jobs of a kind whose names begin with a prefix, the newest first."""
    member = JOB_KINDS[kind]
    wanted = {"NameContains": prefix, "SortBy": "CreationTime", "SortOrder": "Descending"}
    if status is not None:
        wanted["StatusEquals"] = status
    for summary in stage.listed("sagemaker", f"list_{kind}_jobs", f"{member}Summaries", **wanted):
        if summary[f"{member}Name"].startswith(prefix):
            yield summary


def jobs_here(folder: Path) -> Callable[[str], list[str]]:
    """Return a shell's completion with the jobs of which a folder of this machine has something; AWS is not asked."""
    return lambda incomplete: sorted({found.stem for found in folder.glob("*") if found.stem.startswith(incomplete)})


def job_name(text: str) -> str:
    """Return the name of a job; raise UsageError for what cannot be one: no path, and no part of one."""
    if not _NAME.fullmatch(text):
        raise UsageError(f"{text!r} is not the name of a job: letters, digits and hyphens, at most 63.")
    return text


def job_path(folder: Path, job: str, suffix: str = "") -> Path:
    """Return where something of a job goes on this machine: directly in the folder, whatever a listing calls the job.

    Every local path that is made of a remote name is made here; a link, which could lead anywhere, is refused.
    """
    path = folder / f"{job_name(job)}{suffix}"
    if path.is_symlink():
        raise NotReadyError(f"{path} is a link, so nothing is written there.", "Remove it, or choose another folder.")
    return path
