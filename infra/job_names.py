"""How the jobs of a stage are named: which is how they are found again, and what roles may start."""

from __future__ import annotations

import hashlib
from datetime import datetime

from infra.settings import Settings

#: What SageMaker allows for the name of a tuning job; its training jobs are named after it.
MAX_TUNING_NAME = 32
_TUNING_STAMP = "%y%m%d%H%M%S"  # twelve characters


def job_prefix(settings: Settings) -> str:
    """What the names of a stage's jobs begin with."""
    return f"{settings.project}-{settings.stage}-"


def tuning_prefix(settings: Settings) -> str:
    """What the names of a stage's tuning jobs, and of the training jobs that they start, begin with."""
    prefix = job_prefix(settings)
    if len(prefix) > MAX_TUNING_NAME - len("tune-") - 12:
        prefix = f"{hashlib.sha256(prefix.encode()).hexdigest()[:8]}-"
    return f"{prefix}tune-"


def tuning_job_name(settings: Settings, start: datetime) -> str:
    """The name of a tuning job that starts at this time."""
    return f"{tuning_prefix(settings)}{start:{_TUNING_STAMP}}"


def job_patterns(settings: Settings) -> list[str]:
    """What matches the names of all of a stage's jobs, as IAM writes it."""
    jobs, tuning = job_prefix(settings), tuning_prefix(settings)
    return [f"{jobs}*"] if tuning.startswith(jobs) else [f"{jobs}*", f"{tuning}*"]
