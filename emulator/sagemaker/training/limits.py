"""What ends the program of a training job before it ends by itself: its time is up, or its capacity is taken back."""

from __future__ import annotations

import math
import time

from emulator.platform.host import SpotInterruption
from emulator.platform.store import Record

_DEFAULT_MAX_RUNTIME_SECONDS = 86_400


class TrainingLimits:
    """The limits of one job, whose times count from when this is made; `interruption` is None where none happens."""

    def __init__(self, job: Record, interruption: SpotInterruption | None) -> None:
        condition = job.get("StoppingCondition", {})
        self._seconds_left: float = condition.get("MaxRuntimeInSeconds", _DEFAULT_MAX_RUNTIME_SECONDS)
        self._latest_end = time.monotonic() + condition.get("MaxWaitTimeInSeconds", math.inf)
        statuses = [transition["Status"] for transition in job["SecondaryStatusTransitions"]]
        spares = not job.get("EnableManagedSpotTraining") or "Interrupted" in statuses
        self._interruption = None if spares else interruption
        self._began = math.inf

    def instances_begin(self) -> None:
        """The time for running passes from now on: SageMaker counts the download of the inputs, too."""
        self._began = time.monotonic()

    def instances_end(self) -> None:
        self._seconds_left -= time.monotonic() - self._began
        self._began = math.inf

    def reached(self) -> str | None:
        """The limit that has been reached, as SageMaker's secondary status names it; None while there is none."""
        now = time.monotonic()
        if now > self._latest_end:
            return "MaxWaitTimeExceeded"
        if now > self._began + self._seconds_left:
            return "MaxRuntimeExceeded"
        if self._interruption is not None and now > self._began + self._interruption.after_seconds:
            return "Interrupted"
        return None

    def interrupted(self) -> float:
        """The one interruption has happened; how many seconds there is no capacity."""
        assert self._interruption is not None
        pause, self._interruption = self._interruption.wait_seconds, None
        return pause
