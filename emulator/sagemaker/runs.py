"""The jobs that are under way: started, stopped, and interrupted together when the server ends."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod

_SHUTDOWN_SECONDS = 15.0


class Run(ABC):
    """The work of one job, done in a thread of its own.

    Parameters
    ----------
    name
        Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._interrupted = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin in the background."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the work is still under way."""
        return self._thread.ident is None or self._thread.is_alive()

    def join(self, timeout: float) -> None:
        """Wait for the end of the work."""
        self._thread.join(timeout)

    @abstractmethod
    def request_stop(self) -> None:
        """End early, as the job's Stop operation does."""

    @abstractmethod
    def interrupt(self) -> None:
        """End at once and leave the job's record as it is, for a later run to begin anew."""

    @abstractmethod
    def _run(self) -> None:
        """Do the work and write its end into the job's record, unless the run was interrupted."""


class Runs:
    """The runs of one kind of job, by the job's ARN."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()

    def start(self, arn: str, run: Run) -> None:
        """Start a run and remember it while it lasts."""
        with self._lock:
            self._runs = {key: value for key, value in self._runs.items() if value.alive}
            self._runs[arn] = run
        run.start()

    def request_stop(self, arn: str) -> None:
        """Ask a job's run, if there is one, to end early."""
        with self._lock:
            run = self._runs.get(arn)
        if run is not None:
            run.request_stop()

    def interrupt_all(self) -> None:
        """Interrupt every run and wait for their ends."""
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.interrupt()
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        for run in runs:
            run.join(max(0.0, deadline - time.monotonic()))
