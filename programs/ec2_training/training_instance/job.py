"""What is to be trained, and how it went: the two JSON objects that the command line and the instance exchange."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass, field

#: The tag of the instance that names its job.
JOB_TAG = "training-job"
_NAME = re.compile(r"[a-zA-Z0-9](-?[a-zA-Z0-9]){0,62}")

#: How a training ends. As SageMaker has it, but for Interrupted: a spot instance was taken back, another may go on.
COMPLETED, FAILED, STOPPED, INTERRUPTED = "Completed", "Failed", "Stopped", "Interrupted"
ENDED = (COMPLETED, FAILED, STOPPED, INTERRUPTED)


class JobError(Exception):
    """The job cannot be trained; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train; all places are ``s3://`` addresses."""

    name: str
    #: The program's folder as a tar.gz.
    source: str
    #: Prefixes of the inputs, by name.
    channels: dict[str, str]
    #: Prefixes for what the training leaves.
    output: str
    checkpoints: str
    #: For the program; inputs and outputs take their time besides.
    max_runtime_seconds: int
    hyperparameters: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Job:
        """Read what `dump` wrote, or raise JobError."""
        try:
            job = cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise JobError(f"The job's description is not valid: {error}") from error
        require_name(job.name)
        return job

    def dump(self) -> str:
        return json.dumps(asdict(self), indent=2)


@dataclass
class Status:
    """How a training stands; times are seconds since the epoch."""

    job: str
    instance_id: str
    instance_type: str
    #: Starting, Downloading, Training, Uploading, or one of `ENDED`.
    state: str = "Starting"
    reason: str | None = None
    exit_code: int | None = None
    #: Address of the model, once there is one.
    model: str | None = None
    started: float = field(default_factory=time.time)
    ended: float | None = None

    def dump(self) -> str:
        return json.dumps(asdict(self), indent=2)


def require_name(name: str) -> str:
    """Return the name when it can be a job's, or raise JobError."""
    if not _NAME.fullmatch(name):
        raise JobError(f"{name!r} is not a name of a job.")
    return name


def job_key(prefix: str, name: str) -> str:
    """Return where a job's description lies."""
    return f"{prefix}/{name}.json"


def stop_key(prefix: str, name: str) -> str:
    """Return where an object makes a job stop."""
    return f"{prefix}/{name}.stop"


def status_key(prefix: str, name: str) -> str:
    """Return where a job's status lies."""
    return f"{prefix}/{name}/status.json"
