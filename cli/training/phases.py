"""What a training job is doing, as SageMaker's secondary status tells it."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any

from cli.console import console

_INTERVAL = 5.0  # seconds between two lines about the same phase


class PhasePrinter:
    """Prints each phase as it begins (Starting, Downloading, Training, Uploading), and its progress now and then."""

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
            self._message, self._due = phase.get("StatusMessage", ""), monotonic() + _INTERVAL
            console.print(": ".join(filter(None, (phase["Status"], self._message))))
        self._begun = len(phases)
