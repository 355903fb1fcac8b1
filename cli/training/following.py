"""Following a training until it ends: its phases, its log lines, and the error that a bad end is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from time import monotonic
from typing import Any

import botocore.exceptions

from cli.aws import Stage
from cli.console import console
from cli.errors import WorkFailedError, goes_on

_EPOCH = re.compile("epoch=([0-9]{1,9}) ")  # how model/training/loop/metrics.py begins an epoch's line
_PHASE_INTERVAL = 5.0  # seconds between two lines about the same phase


class JobLog:
    """Prints each log line of a job's instances once, as CloudWatch gets them."""

    def __init__(self, stage: Stage, job: str, group: str) -> None:
        self._logs, self._job, self._group = stage.client("logs"), job, group
        self._tokens: dict[str, str] = {}
        self.epoch = 0  # the last one of which a line has come

    def goes_on(self, price: str) -> AbstractContextManager[None]:
        """Have Ctrl-C say that the job goes on."""
        follow = f"Follow it: kennel train --follow {self._job}  Stop it: kennel train --stop {self._job}"
        return goes_on(f"The training {self._job} goes on ({price}).\n{follow}")

    def require_completed(self, state: str, reason: str, hint: str = "") -> None:
        """Raise WorkFailedError for a job that has ended in another way."""
        if state == "Completed":
            return
        kept = f"Package what it had learned: kennel package --job {self._job}  " if state == "Stopped" else ""
        raise WorkFailedError(
            f"The training job {self._job} ended as {state}{f': {reason}' if reason != state else ''}",
            f"{kept}Its whole log: log group {self._group}, streams {self._job}/…{hint}",
        )

    def print_new(self) -> None:
        """Print what has arrived since the last call."""
        try:
            streams = self._logs.describe_log_streams(logGroupName=self._group, logStreamNamePrefix=f"{self._job}/")
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return  # nothing has been logged in this account yet
            raise
        names = sorted(stream["logStreamName"] for stream in streams["logStreams"])
        for name in names:
            prefix = f"{name.split('/')[-1].rsplit('-', 1)[0]}  " if len(names) > 1 else ""
            while self._print_page(name, prefix):
                pass

    def _print_page(self, stream: str, prefix: str) -> bool:
        token = {"nextToken": self._tokens[stream]} if stream in self._tokens else {}
        page = self._logs.get_log_events(logGroupName=self._group, logStreamName=stream, startFromHead=True, **token)
        self._tokens[stream] = page["nextForwardToken"]
        for event in page["events"]:
            console.print(f"  {prefix}{event['message'].rstrip()}", style="dim")
            if found := _EPOCH.match(event["message"]):
                self.epoch = int(found[1])
        return bool(page["events"])


class PhasePrinter:
    """Prints SageMaker's phases (Starting, Downloading, Training, Uploading) as they begin, and their progress."""

    def __init__(self) -> None:
        self._begun = 0
        self._message = ""
        self._due = 0.0

    def print_new(self, description: Mapping[str, Any]) -> None:
        """Print what is new in an answer of DescribeTrainingJob; the end of the job is left to the caller."""
        phases = description.get("SecondaryStatusTransitions", [])
        if description["TrainingJobStatus"] not in ("InProgress", "Stopping"):
            phases = phases[:-1]
        new = phases[self._begun :]
        if phases and not new and phases[-1].get("StatusMessage") != self._message and monotonic() > self._due:
            new = phases[-1:]
        for phase in new:
            self._message, self._due = phase.get("StatusMessage", ""), monotonic() + _PHASE_INTERVAL
            console.print(": ".join(filter(None, (phase["Status"], self._message))))
        self._begun = len(phases)
