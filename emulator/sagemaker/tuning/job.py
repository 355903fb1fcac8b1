"""One tuning job: starts training jobs, ends the hopeless ones, and knows when enough has been tried."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence

from emulator.platform.awsapi import Caller, ServiceError
from emulator.platform.store import Record
from emulator.sagemaker.resources import Resources
from emulator.sagemaker.runs import JobFailed, Run
from emulator.sagemaker.training.operations import TrainingJobs
from emulator.sagemaker.tuning.definition import TuningDefinition
from emulator.sagemaker.tuning.progress import RUNNING, as_trial, best, not_improving, objective_value
from emulator.sagemaker.tuning.search import Search, Trial

_POLL_SECONDS = 0.2
#: SageMaker gives a tuning job up when so many training jobs have ended and none of them well.
_HOPELESS_JOBS = 5


class TuningRun(Run):
    """The work of one tuning job; it keeps nothing that the records do not say, so another run can take over."""

    def __init__(
        self,
        record: Record,
        definition: TuningDefinition,
        search: Search,
        tuning_jobs: Resources,
        training_jobs: TrainingJobs,
    ) -> None:
        super().__init__(f"tuning job {record['HyperParameterTuningJobName']}")
        self._arn: str = record["HyperParameterTuningJobArn"]
        self._name: str = record["HyperParameterTuningJobName"]
        self._created: float = record["CreationTime"]
        self._caller = Caller.of_arn(self._arn)
        self._definition = definition
        self._search = search
        self._stopping = definition.stopping_rule(self._arn)
        self._tuning_jobs = tuning_jobs
        self._training_jobs = training_jobs
        self._ended: dict[str, Trial] = {}
        self._wake = threading.Event()

    def request_stop(self) -> None:
        self._wake.set()  # the record says that the job is to stop

    def interrupt(self) -> None:
        self._interrupted.set()
        self._wake.set()

    def _run(self) -> None:
        status, reason = self._outcome(lambda: self._tuning_jobs.insist(self._work))
        if self._interrupted.is_set():
            return
        self._end(self._training_jobs.launched_by(self._arn))

        def change(record: Record) -> None:
            record.update(HyperParameterTuningJobStatus=status, HyperParameterTuningEndTime=time.time())
            if reason is not None:
                record["FailureReason"] = reason

        self._tuning_jobs.insist(lambda: self._tuning_jobs.change(self._arn, change))

    def _work(self) -> str:
        """Start and end training jobs until it is decided how the tuning job ends, and all of them have ended."""
        ending = False
        while not self._interrupted.is_set():
            jobs = self._training_jobs.launched_by(self._arn)
            stopped = self._is_being_stopped()
            ending = ending or stopped or self._has_enough(jobs)
            if ending:
                self._end(jobs)
            else:
                exhausted = not self._advance(jobs)
                jobs = self._training_jobs.launched_by(self._arn)
                ending = exhausted and not _running(jobs)
            if ending and not _running(jobs):
                return "Stopped" if stopped else self._conclusion(jobs)
            self._wake.wait(_POLL_SECONDS)
            self._wake.clear()
        return "InProgress"

    def _conclusion(self, jobs: Sequence[Record]) -> str:
        if best(jobs, self._definition) is not None:
            return "Completed"
        if any(job["TrainingJobStatus"] == "Completed" for job in jobs):
            raise JobFailed(
                f"No objective metrics found after running {len(jobs)} training jobs. Please ensure that the custom "
                "algorithm is emitting the objective metric as defined by the regular expression provided."
            )
        raise JobFailed(
            f"No training job succeeded after {len(jobs)} attempts. Please take a look at the training job failures to "
            "get more details."
        )

    def _is_being_stopped(self) -> bool:
        return bool(self._tuning_jobs.require_arn(self._arn)["HyperParameterTuningJobStatus"] == "Stopping")

    def _has_enough(self, jobs: Sequence[Record]) -> bool:
        """Whether no more is to be tried although there would be more to try."""
        definition = self._definition
        if definition.max_seconds is not None and time.time() > self._created + definition.max_seconds:
            return True
        found = best(jobs, definition)
        if found is None:
            return len(jobs) - len(_running(jobs)) >= _HOPELESS_JOBS
        value = objective_value(found, definition)
        assert value is not None
        if definition.target is not None and not definition.better(definition.target, value):
            return True
        limit = definition.not_improving_limit
        return limit is not None and not_improving(jobs, definition) >= limit

    def _advance(self, jobs: Sequence[Record]) -> bool:
        """End hopeless training jobs and start new ones; False when nothing is left to start."""
        trials = [self._trial(job) for job in jobs]
        if self._stopping is not None:
            hopeless = self._stopping.hopeless(trials)
            self._end([job for job in jobs if job["TrainingJobName"] in hopeless])
        free = self._definition.parallel_jobs - len(_running(jobs))
        for _ in range(min(free, self._definition.max_jobs - len(trials))):
            values = self._search.propose(trials)
            if values is None:
                return False
            request = self._definition.training_request(self._name, len(trials) + 1, values)
            members = {"TuningJobArn": self._arn, "TunedHyperParameters": values}
            try:
                trials.append(self._trial(self._training_jobs.launch(request, self._caller, **members)))
            except ServiceError as error:  # such as a name that is taken
                raise JobFailed(f"ClientError: {error.message}") from None
        return len(trials) < self._definition.max_jobs

    def _trial(self, job: Record) -> Trial:
        """A training job as the search sees it; one that has ended is looked up only once."""
        arn = job["TrainingJobArn"]
        if arn in self._ended:
            return self._ended[arn]
        values = self._training_jobs.metric_values(arn, self._definition.objective["MetricName"])
        trial = as_trial(job, self._definition, values)
        if trial.ended:
            self._ended[arn] = trial
        return trial

    def _end(self, jobs: Sequence[Record]) -> None:
        """Stop those of the jobs that run."""
        for job in jobs:
            if job["TrainingJobStatus"] != "InProgress":
                continue
            with contextlib.suppress(ServiceError):  # it has just ended by itself
                self._training_jobs.request_stop(job["TrainingJobArn"])


def _running(jobs: Sequence[Record]) -> list[Record]:
    return [job for job in jobs if job["TrainingJobStatus"] in RUNNING]
