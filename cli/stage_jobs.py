"""How the jobs of a stage are named, which is how they are found again."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from cli.aws import Stage

#: What SageMaker allows for the name of a tuning job; its training jobs are named after it.
_MAX_TUNING_NAME = 32
_TUNING_STAMP = "%y%m%d%H%M%S"
_STAMP_LENGTH = 12


def job_prefix(stage: Stage) -> str:
    """What the names of this stage's jobs begin with."""
    return f"{stage.settings.project}-{stage.name}-"


def tuning_prefix(stage: Stage) -> str:
    """What the names of this stage's tuning jobs, and of the training jobs that they start, begin with."""
    prefix = job_prefix(stage)
    if len(prefix) > _MAX_TUNING_NAME - len("tune-") - _STAMP_LENGTH:
        prefix = f"{hashlib.sha256(prefix.encode()).hexdigest()[:8]}-"
    return f"{prefix}tune-"


def new_tuning_job(stage: Stage) -> str:
    """A name for a tuning job that begins now."""
    return f"{tuning_prefix(stage)}{datetime.now(UTC):{_TUNING_STAMP}}"
