"""Jobs that run in threads of the server: stopped on request, interrupted when the server ends, and begun anew."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from emulator.platform.awsapi import Caller, Payload
from emulator.platform.errors import refuse
from emulator.platform.store import Record, Store, StoreError
from emulator.sagemaker.resources import Kind, Resources

logger = logging.getLogger(__name__)

#: AWS's limit for FailureReason.
MAX_REASON_CHARACTERS = 1024
_SHUTDOWN_SECONDS = 15.0


class JobFailed(Exception):
    """The job cannot be completed; the message is its FailureReason."""


class JobStopped(Exception):
    """The job ends before it is complete; the message is its status."""


class Run(ABC):
    """The work of one job, done in a thread called `name`."""

    def __init__(self, name: str) -> None:
        self._interrupted = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.start = self._thread.start
        self.join = self._thread.join

    @property
    def alive(self) -> bool:
        """Whether the work is still under way, or has not begun."""
        return self._thread.ident is None or self._thread.is_alive()

    @abstractmethod
    def request_stop(self) -> None:
        """End early, as the job's Stop operation does."""

    @abstractmethod
    def interrupt(self) -> None:
        """End at once and leave the job's record as it is, for a later run to begin anew."""

    def _outcome(self, work: Callable[[], str]) -> tuple[str, str | None]:
        """Do the work, which returns the status that the job ends with; that, and the reason of a failure."""
        try:
            return work(), None
        except JobStopped as stopped:
            return str(stopped), None
        except JobFailed as error:
            reason = str(error)
        except StoreError as error:  # nobody waits for space any more, because the server ends
            self._interrupted.set()
            reason = str(error)
        except OSError as error:  # most likely the disk is full, and the log of the local AWS cannot say more
            reason = f"InternalServerError: {error}"
        except Exception:
            if not self._interrupted.is_set():
                logger.exception("%s", self._thread.name)
            reason = "InternalServerError: the log of the local AWS says more."
        return "Failed", reason[:MAX_REASON_CHARACTERS]

    @abstractmethod
    def _run(self) -> None:
        """Do the work and write its end into the job's record, unless the run was interrupted."""


class Jobs(ABC):
    """What all kinds of jobs share: Stop, and their lives across restarts; messages call such a job by its `title`."""

    def __init__(self, store: Store, kind: Kind, title: str) -> None:
        self.kind = kind
        self._jobs = Resources(store, kind)
        self._title = title
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()

    def stop_job(self, request: Payload, caller: Caller) -> None:
        """Answer the kind's Stop operation."""
        self.request_stop(self._jobs.require(caller, request[self.kind.name_member])[self.kind.arn_member])

    def request_stop(self, arn: str) -> None:
        """Stop a job as its Stop operation does; refuse one that has ended already."""

        def change(record: Record) -> None:
            status = record[self.kind.status_member]
            ended = status not in ("InProgress", "Stopping")
            refuse(ended, f"The request was rejected because the {self._title} job is in status {status}.")
            if status == "InProgress":
                self._mark(record, "Stopping")

        self._jobs.change(arn, change)
        with self._lock:
            run = self._runs.get(arn)
        if run is not None:
            run.request_stop()

    def start(self) -> None:
        """Take up the jobs that an earlier life of the server left unfinished."""
        for record in self._jobs.all():
            if (status := record[self.kind.status_member]) in ("InProgress", "Stopping"):
                self._take_up(record, stopping=status == "Stopping")

    def stop(self) -> None:
        """Interrupt every job and wait for the ends of their runs; `start` takes them up again."""
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.interrupt()
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        for run in runs:
            run.join(max(0.0, deadline - time.monotonic()))

    def _begin(self, record: Record) -> None:
        """Run a job and remember its run while it lasts."""
        arn, run = record[self.kind.arn_member], self._new_run(record)
        with self._lock:
            self._runs = {key: value for key, value in self._runs.items() if value.alive}
            self._runs[arn] = run
        run.start()
        if self._jobs.require_arn(arn)[self.kind.status_member] == "Stopping":
            run.request_stop()  # asked for when there was no run yet that could be told

    def _take_up(self, record: Record, stopping: bool) -> None:
        """Begin a job anew, or end it when it was being stopped."""
        if stopping:
            self._jobs.change(record[self.kind.arn_member], lambda record: self._mark(record, "Stopped"))
        else:
            self._begin(record)

    def _mark(self, record: Record, status: str) -> None:
        """Write the status Stopping or Stopped of a job whose run does not do so itself."""
        record[self.kind.status_member] = status
        if status == "Stopped":
            record[f"{self.kind.member.removesuffix('Job')}EndTime"] = time.time()

    @abstractmethod
    def _new_run(self, record: Record) -> Run:
        """Make the run of a job."""
