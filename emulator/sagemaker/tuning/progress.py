"""How far a tuning job has come, told from the records of its training jobs: counters, summaries, the best one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from emulator.platform.awsapi import Payload
from emulator.platform.store import Record
from emulator.sagemaker.tuning.definition import TuningDefinition
from emulator.sagemaker.tuning.search import Trial

RUNNING = ("InProgress", "Stopping")
#: A training job counts as an improvement when its objective is better by this share (API reference,
#: MaxNumberOfTrainingJobsNotImproving).
_IMPROVEMENT = 0.01
_COPIED = (
    *("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingStartTime", "TrainingEndTime"),
    *("TrainingJobStatus", "FailureReason", "TunedHyperParameters"),
)


def objective_value(job: Record, definition: TuningDefinition) -> float | None:
    """The objective of a training job that has ended: the last value that its log gave; None where there is none."""
    if job["TrainingJobStatus"] not in ("Completed", "Stopped"):
        return None
    metric = definition.objective["MetricName"]
    return next((item["Value"] for item in job.get("FinalMetricDataList", []) if item["MetricName"] == metric), None)


def as_trial(job: Record, definition: TuningDefinition, values: tuple[float, ...] = ()) -> Trial:
    """A training job as the search sees it; `values` are those of its objective so far."""
    ended = job["TrainingJobStatus"] not in RUNNING
    return Trial(job["TrainingJobName"], job["TunedHyperParameters"], objective_value(job, definition), ended, values)


def summary(job: Record, definition: TuningDefinition) -> Payload:
    """A training job as ListTrainingJobsForHyperParameterTuningJob shows it."""
    answer: dict[str, Any] = {member: job[member] for member in _COPIED if member in job}
    value = objective_value(job, definition)
    if value is not None:
        answer["FinalHyperParameterTuningJobObjectiveMetric"] = {**definition.objective, "Value": value}
    return {**answer, "ObjectiveStatus": _objective_status(job, definition)}


def best(jobs: Sequence[Record], definition: TuningDefinition) -> Record | None:
    """The training job with the best objective; of equals the first."""
    values = [(value, job) for job in jobs if (value := objective_value(job, definition)) is not None]
    choose = min if definition.minimize else max
    return choose(values, key=lambda pair: pair[0])[1] if values else None


def counters(jobs: Sequence[Record], definition: TuningDefinition) -> Payload:
    """TrainingJobStatusCounters and ObjectiveStatusCounters."""
    statuses = Counter(job["TrainingJobStatus"] for job in jobs)
    objectives = Counter(_objective_status(job, definition) for job in jobs)
    return {
        "TrainingJobStatusCounters": {
            "Completed": statuses["Completed"],
            "InProgress": statuses["InProgress"] + statuses["Stopping"],
            "RetryableError": 0,
            "NonRetryableError": statuses["Failed"],
            "Stopped": statuses["Stopped"],
        },
        "ObjectiveStatusCounters": {status: objectives[status] for status in ("Succeeded", "Pending", "Failed")},
    }


def not_improving(jobs: Sequence[Record], definition: TuningDefinition) -> int:
    """How many training jobs have ended since the last one that bettered the objective by at least 1%."""
    ended = [job for job in jobs if job["TrainingJobStatus"] not in RUNNING]
    record: float | None = None
    count = 0
    for job in sorted(ended, key=lambda job: job.get("TrainingEndTime", 0)):
        value = objective_value(job, definition)
        if value is not None and (record is None or _improves(value, record, definition)):
            record, count = value, 0
        else:
            count += 1
    return count


def _improves(value: float, record: float, definition: TuningDefinition) -> bool:
    return definition.better(value, record) and abs(value - record) >= _IMPROVEMENT * abs(record)


def _objective_status(job: Record, definition: TuningDefinition) -> str:
    if job["TrainingJobStatus"] in RUNNING:
        return "Pending"
    return "Failed" if objective_value(job, definition) is None else "Succeeded"
