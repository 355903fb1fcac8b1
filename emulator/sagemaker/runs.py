"""Jobs that run in threads of the server: stopped on request, interrupted when the server ends, and begun anew."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from emulator.platform.awsapi import Caller, Payload, ServiceError
from emulator.platform.errors import refuse
from emulator.platform.store import Record, Store, StoreError
from emulator.sagemaker.resources import Kind, Resources

logger = logging.getLogger(__name__)

#: The statuses of jobs that have not ended.
RUNNING = ("InProgress", "Stopping")
#: AWS's limit for FailureReason.
MAX_REASON_CHARACTERS = 1024
_SHUTDOWN_SECONDS = 15.0


class JobFailed(Exception):
    """The job cannot be completed; the message is its FailureReason."""


class JobStopped(Exception):
    """The job ends before it is complete; the message is its status."""


class Run(ABC):
    """The work of the job with this record, done in a thread."""

    def __init__(self, jobs: Resources, record: Record) -> None:
        self._jobs = jobs
        self._job = record
        self._arn: str = record[jobs.kind.arn_member]
        self._name: str = record[jobs.kind.name_member]
        self._caller = Caller.of_arn(self._arn)
        self._region = self._caller.region
        self._interrupted = threading.Event()
        self._stop_requested = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self._arn, daemon=True)
        self.start = self._thread.start
        self.join = self._thread.join

    @property
    def alive(self) -> bool:
        """Whether the work is still under way, or has not begun."""
        return self._thread.ident is None or self._thread.is_alive()

    def request_stop(self) -> None:
        """End early, as the job's Stop operation does."""
        self._stop_requested.set()

    def interrupt(self) -> None:
        """End at once and leave the job's record as it is, for a later run to begin anew."""
        self._interrupted.set()
        self.request_stop()

    @abstractmethod
    def _work(self) -> str:
        """Do the work; the status that the job ends with."""

    @abstractmethod
    def _clean_up(self) -> None:
        """Leave nothing behind of the work, however it ended."""

    def _write_end(self, record: Record, status: str, reason: str | None) -> None:
        kind = self._jobs.kind
        record.update({kind.status_member: status, f"{kind.member.removesuffix('Job')}EndTime": time.time()})
        if reason is not None:
            record["FailureReason"] = reason

    def _change(self, change: Callable[[Record], None]) -> None:
        """Change the job's record, however long there is no space."""
        self._jobs.insist(lambda: self._jobs.change(self._arn, change))

    def _run(self) -> None:
        status, reason = "Failed", None
        try:
            status = self._work()
        except JobStopped as stopped:
            status = str(stopped)
        except JobFailed as error:
            reason = str(error)
        except ServiceError as error:  # such as a role that does not trust SageMaker
            reason = f"ClientError: {error.message}"
        except StoreError:  # nobody waits for space any more, because the server ends
            self._interrupted.set()
        except OSError as error:  # most likely the disk is full, and the log of the local AWS cannot say more
            reason = f"InternalServerError: {error}"
        except Exception:
            if not self._interrupted.is_set():
                logger.exception("%s", self._arn)
            reason = "InternalServerError: the log of the local AWS says more."
        self._clean_up()
        if not self._interrupted.is_set():
            self._change(lambda record: self._write_end(record, status, reason and reason[:MAX_REASON_CHARACTERS]))


class Jobs(ABC):
    """What all kinds of jobs share: Stop, and their lives across restarts; messages call such a job by its `title`."""

    def __init__(self, store: Store, kind: Kind, title: str) -> None:
        self.kind = kind
        self._jobs = Resources(store, kind)
        self._title = title
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()
        self._ending = False

    def stop_job(self, request: Payload, caller: Caller) -> None:
        self.request_stop(self._jobs.require(caller, request[self.kind.name_member])[self.kind.arn_member])

    def request_stop(self, arn: str) -> None:
        def change(record: Record) -> None:
            status = record[self.kind.status_member]
            refuse(
                status not in RUNNING, f"The request was rejected because the {self._title} job is in status {status}."
            )
            if status == "InProgress":
                self._mark_stopping(record)

        self._jobs.change(arn, change)
        with self._lock:
            run = self._runs.get(arn)
        if run is not None:
            run.request_stop()

    def start(self) -> None:
        """Take up the jobs that an earlier life of the server left unfinished."""
        for record in self._jobs.all():
            if record[self.kind.status_member] in RUNNING:
                self._begin(record)

    def interrupt(self) -> None:
        """Interrupt every job, those to come included; the next server's `start` takes them up."""
        with self._lock:
            self._ending = True
            runs = list(self._runs.values())
        for run in runs:
            run.interrupt()

    def stop(self) -> None:
        self.interrupt()
        with self._lock:
            runs = list(self._runs.values())
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        for run in runs:
            run.join(max(0.0, deadline - time.monotonic()))

    def _begin(self, record: Record) -> None:
        arn, run = record[self.kind.arn_member], self._new_run(record)
        with self._lock:
            if self._ending:
                return
            self._runs = {key: value for key, value in self._runs.items() if value.alive}
            self._runs[arn] = run
        if self._jobs.require_arn(arn)[self.kind.status_member] == "Stopping":
            run.request_stop()  # asked for when there was no run yet that could be told, or by an earlier life
        run.start()

    def _mark_stopping(self, record: Record) -> None:
        record[self.kind.status_member] = "Stopping"

    @abstractmethod
    def _new_run(self, record: Record) -> Run:
        """Make the run of a job."""
