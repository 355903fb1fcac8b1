"""Tuning jobs: their operations, and their lives across restarts of the server."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.model import ServiceModel

from emulator.platform.awsapi import Caller, Payload, ServiceError, operation, paginate
from emulator.platform.store import Record, Store
from emulator.sagemaker.resources import DEFAULT_PAGE_SIZE, TUNING_JOB, Resources, project
from emulator.sagemaker.runs import Runs
from emulator.sagemaker.training.operations import TrainingJobs
from emulator.sagemaker.tuning.definition import TuningDefinition, check_parents
from emulator.sagemaker.tuning.job import TuningRun
from emulator.sagemaker.tuning.progress import as_trial, best, counters, not_improving, objective_value, summary
from emulator.sagemaker.tuning.search import Search, Trial


class TuningJobs:
    """Create, Describe, List and StopHyperParameterTuningJob, ListTrainingJobsForHyperParameterTuningJob."""

    def __init__(self, store: Store, model: ServiceModel, training_jobs: TrainingJobs) -> None:
        self._model = model
        self._training_jobs = training_jobs
        self._jobs = Resources(store, TUNING_JOB)
        self._runs = Runs()

    @operation("CreateHyperParameterTuningJob")
    def create(self, request: Payload, caller: Caller) -> Payload:
        definition = TuningDefinition(request)
        definition.check_training()
        if "WarmStartConfig" in request:
            check_parents(request, definition, self._parents(request, caller))
        record = self._jobs.create(
            caller,
            request,
            HyperParameterTuningJobStatus="InProgress",
            # What the lists sort and show by.
            Strategy=request["HyperParameterTuningJobConfig"]["Strategy"],
            ResourceLimits=request["HyperParameterTuningJobConfig"]["ResourceLimits"],
        )
        self._begin(record)
        return {"HyperParameterTuningJobArn": record["HyperParameterTuningJobArn"]}

    @operation("DescribeHyperParameterTuningJob")
    def describe(self, request: Payload, caller: Caller) -> Payload:
        record = self._jobs.require(caller, request["HyperParameterTuningJobName"])
        shape = self._model.operation_model("DescribeHyperParameterTuningJob").output_shape
        return project({**record, **self._progress(record, caller)}, shape)

    @operation("ListHyperParameterTuningJobs")
    def list_all(self, request: Payload, caller: Caller) -> Payload:
        answer = self._jobs.list_page(
            caller, request, self._model, "ListHyperParameterTuningJobs", sort_by="Name", order="Ascending"
        )
        for item in answer["HyperParameterTuningJobSummaries"]:
            record = self._jobs.require_arn(item["HyperParameterTuningJobArn"])
            item.update(counters(self._started_by(record), TuningDefinition(record)))
        return answer

    @operation("ListTrainingJobsForHyperParameterTuningJob")
    def list_training_jobs(self, request: Payload, caller: Caller) -> Payload:
        record = self._jobs.require(caller, request["HyperParameterTuningJobName"])
        definition = TuningDefinition(record)
        wanted = request.get("StatusEquals")
        jobs = [job for job in self._started_by(record) if wanted in (None, job["TrainingJobStatus"])]
        sort_by: str = request.get("SortBy", "Name")
        if sort_by == "FinalObjectiveMetricValue":  # jobs without one are not listed
            jobs = [job for job in jobs if objective_value(job, definition) is not None]
            jobs.sort(key=lambda job: objective_value(job, definition) or 0.0)
        else:
            member = {"Name": "TrainingJobName", "Status": "TrainingJobStatus"}.get(sort_by, sort_by)
            jobs.sort(key=lambda job: (job[member], job["TrainingJobName"]))
        if request.get("SortOrder") == "Descending":
            jobs.reverse()
        page, token = paginate(
            [summary(job, definition) for job in jobs],
            key="TrainingJobArn",
            limit=request.get("MaxResults", DEFAULT_PAGE_SIZE),
            token=request.get("NextToken"),
        )
        return {"TrainingJobSummaries": page, **({"NextToken": token} if token else {})}

    @operation("StopHyperParameterTuningJob")
    def stop_job(self, request: Payload, caller: Caller) -> None:
        arn = self._jobs.require(caller, request["HyperParameterTuningJobName"])["HyperParameterTuningJobArn"]

        def change(record: Record) -> None:
            status = record["HyperParameterTuningJobStatus"]
            if status not in ("InProgress", "Stopping"):
                raise ServiceError(
                    "ValidationException", f"The request was rejected because the tuning job is in status {status}."
                )
            record["HyperParameterTuningJobStatus"] = "Stopping"

        self._jobs.change(arn, change)
        self._runs.request_stop(arn)

    def start(self) -> None:
        """Take up the tuning jobs that an earlier life of the server left unfinished; the training jobs run by now."""
        for record in self._jobs.all():
            if record["HyperParameterTuningJobStatus"] in ("InProgress", "Stopping"):
                self._begin(record)

    def stop(self) -> None:
        """Interrupt every tuning job before the training jobs are interrupted; `start` takes them up again."""
        self._runs.interrupt_all()

    def _begin(self, record: Record) -> None:
        definition = TuningDefinition(record)
        arn = record["HyperParameterTuningJobArn"]
        search = self._search(record, definition)
        self._runs.start(arn, TuningRun(record, definition, search, self._jobs, self._training_jobs))

    def _search(self, record: Record, definition: TuningDefinition) -> Search:
        """The search, warmed by its parents.

        What was measured on the same data counts as measured; of what was measured on other data, the best values are
        tried first.
        """
        observed: list[Trial] = []
        suggested: list[Mapping[str, str]] = []
        identical = record.get("WarmStartConfig", {}).get("WarmStartType") == "IdenticalDataAndAlgorithm"
        for parent in self._parents(record, Caller.of_arn(record["HyperParameterTuningJobArn"])):
            earlier, jobs = TuningDefinition(parent), self._started_by(parent)
            if identical:
                observed += [_known_values(as_trial(job, earlier, {}), job) for job in jobs]
            elif (found := best(jobs, earlier)) is not None:
                values = {name: found["HyperParameters"].get(name, "") for name in definition.searched}
                if all(each.coordinate(values[each.name]) is not None for each in definition.ranges):
                    suggested.append(values)
        seed_name = f"{record['HyperParameterTuningJobArn']}/{record['CreationTime']}"
        return definition.search(seed_name, observed, suggested)

    def _parents(self, request: Payload, caller: Caller) -> list[Record]:
        parents = request.get("WarmStartConfig", {}).get("ParentHyperParameterTuningJobs", [])
        names = [parent.get("HyperParameterTuningJobName", "") for parent in parents]
        return [self._jobs.require(caller, name) for name in names]

    def _started_by(self, record: Record) -> list[Record]:
        return self._training_jobs.launched_by(record["HyperParameterTuningJobArn"])

    def _progress(self, record: Record, caller: Caller) -> Payload:
        """The members of a description that follow from the training jobs."""
        definition, jobs = TuningDefinition(record), self._started_by(record)
        ended = record.get("HyperParameterTuningEndTime", time.time())
        members: dict[str, Any] = {
            **counters(jobs, definition),
            "TuningJobCompletionDetails": {
                "NumberOfTrainingJobsObjectiveNotImproving": not_improving(jobs, definition)
            },
            "ConsumedResources": {"RuntimeInSeconds": round(ended - record["CreationTime"])},
        }
        if (found := best(jobs, definition)) is not None:
            members["BestTrainingJob"] = summary(found, definition)
        if record.get("WarmStartConfig", {}).get("WarmStartType") == "IdenticalDataAndAlgorithm":
            parents = self._parents(record, caller)
            members |= _overall_best([record, *parents], [jobs, *map(self._started_by, parents)], definition)
        return members


def _overall_best(tuning_jobs: Sequence[Record], jobs: Sequence[list[Record]], definition: TuningDefinition) -> Payload:
    """OverallBestTrainingJob: of a tuning job and its parents."""
    everything = [job for started in jobs for job in started]
    found = best(everything, definition)
    if found is None:
        return {}
    name = next(
        record["HyperParameterTuningJobName"]
        for record in tuning_jobs
        if record["HyperParameterTuningJobArn"] == found["TuningJobArn"]
    )
    return {"OverallBestTrainingJob": {**summary(found, definition), "TuningJobName": name}}


def _known_values(trial: Trial, job: Record) -> Trial:
    """A parent's training job with all its hyperparameters: what was static there may be tuned here."""
    return Trial(trial.name, job["HyperParameters"], trial.objective, trial.ended)
