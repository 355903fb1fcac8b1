"""One tuning job: starts training jobs, ends the hopeless ones, and knows when enough has been tried."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from emulator.platform.awsapi import ServiceError
from emulator.platform.store import Record
from emulator.sagemaker.resources import Resources
from emulator.sagemaker.runs import RUNNING, JobFailed, Run
from emulator.sagemaker.training.operations import TrainingJobs
from emulator.sagemaker.tuning.definition import TuningDefinition
from emulator.sagemaker.tuning.search import Search, Trial

_POLL_SECONDS = 0.2
#: SageMaker gives a tuning job up when so many training jobs have ended and none of them well.
_HOPELESS_JOBS = 5


class TuningRun(Run):
    """The work of one tuning job; it keeps nothing that the records do not say, so another run can take over."""

    def __init__(
        self,
        tuning_jobs: Resources,
        record: Record,
        definition: TuningDefinition,
        search: Search,
        training_jobs: TrainingJobs,
    ) -> None:
        super().__init__(tuning_jobs, record)
        self._definition = definition
        self._search = search
        self._stopping = definition.stopping_rule(self._arn)
        self._training_jobs = training_jobs
        self._ended: dict[str, Trial] = {}

    def interrupt(self) -> None:
        self._interrupted.set()  # and nothing is stopped: the training jobs go on, too

    def _clean_up(self) -> None:
        if not self._interrupted.is_set():
            self._end(self._started())

    def _work(self) -> str:
        return self._jobs.insist(self._search_on)

    def _search_on(self) -> str:
        """Start and end training jobs until it is decided how the tuning job ends, and all of them have ended."""
        ending = False
        while not self._interrupted.is_set():
            jobs = self._started()
            stopped = self._stop_requested.is_set()
            ending = ending or stopped or self._has_enough(jobs)
            if ending:
                self._end(jobs)
            else:
                exhausted = not self._advance(jobs)
                jobs = self._started()
                ending = exhausted and not _running(jobs)
            if ending and not _running(jobs):
                return "Stopped" if stopped else self._conclusion(jobs)
            time.sleep(_POLL_SECONDS)
        return "InProgress"

    def _conclusion(self, jobs: Sequence[Record]) -> str:
        if self._definition.best(jobs) is not None:
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

    def _has_enough(self, jobs: Sequence[Record]) -> bool:
        """Whether no more is to be tried although there would be more to try."""
        seconds = self._definition.max_seconds
        if seconds is not None and time.time() > self._job["CreationTime"] + seconds:
            return True
        return self._definition.best(jobs) is None and len(jobs) - len(_running(jobs)) >= _HOPELESS_JOBS

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
            trials.append(self._trial(self._training_jobs.launch(request, self._caller, **members)))
        return len(trials) < self._definition.max_jobs

    def _trial(self, job: Record) -> Trial:
        """A training job as the search sees it; one that has ended is looked up only once."""
        arn = job["TrainingJobArn"]
        if arn in self._ended:
            return self._ended[arn]
        values = self._training_jobs.metric_values(arn, self._definition.objective["MetricName"])
        trial = self._definition.trial(job, values)
        if trial.ended:
            self._ended[arn] = trial
        return trial

    def _started(self) -> list[Record]:
        return self._training_jobs.launched_by(self._arn)

    def _end(self, jobs: Sequence[Record]) -> None:
        for job in jobs:
            if job["TrainingJobStatus"] != "InProgress":
                continue
            with contextlib.suppress(ServiceError):  # it has just ended by itself
                self._training_jobs.request_stop(job["TrainingJobArn"])


def _running(jobs: Sequence[Record]) -> list[Record]:
    return [job for job in jobs if job["TrainingJobStatus"] in RUNNING]
