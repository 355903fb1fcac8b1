"""Tuning jobs: their operations, and their lives across restarts of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from emulator.platform.awsapi import Caller, Payload, operation, page
from emulator.platform.errors import refuse
from emulator.platform.store import Record, Store
from emulator.sagemaker.resources import TUNING_JOB
from emulator.sagemaker.runs import Jobs, Run
from emulator.sagemaker.training.operations import TrainingJobs
from emulator.sagemaker.tuning.definition import TuningDefinition
from emulator.sagemaker.tuning.job import TuningRun
from emulator.sagemaker.tuning.ranges import coordinates
from emulator.sagemaker.tuning.search import Search, Trial


class TuningJobs(Jobs):
    """Create, Describe and List of HyperParameterTuningJob, ListTrainingJobsForHyperParameterTuningJob."""

    def __init__(self, store: Store, training_jobs: TrainingJobs) -> None:
        super().__init__(store, TUNING_JOB, "tuning")
        self._training_jobs = training_jobs

    @operation("CreateHyperParameterTuningJob")
    def create(self, request: Payload, caller: Caller) -> Payload:
        definition = TuningDefinition(request)
        definition.check_training()
        self._training_jobs.check_access(request["TrainingJobDefinition"], caller)
        if "WarmStartConfig" in request:
            parents = self._parents(request, caller)
            different = len({parent["HyperParameterTuningJobArn"] for parent in parents}) == len(parents)
            refuse(not different, "The parent tuning jobs must be different ones.")
            for parent in parents:
                definition.check_parent(parent, request["WarmStartConfig"]["WarmStartType"])
        config = request["HyperParameterTuningJobConfig"]
        shown = {member: config[member] for member in ("Strategy", "ResourceLimits")}  # in lists
        record = self._jobs.create(caller, request, HyperParameterTuningJobStatus="InProgress", **shown)
        self._begin(record)
        return {"HyperParameterTuningJobArn": record["HyperParameterTuningJobArn"]}

    @operation("DescribeHyperParameterTuningJob")
    def describe(self, request: Payload, caller: Caller) -> Payload:
        record = self._jobs.require(caller, request["HyperParameterTuningJobName"])
        definition, jobs = TuningDefinition(record), self._started_by(record)
        answer = {**self._jobs.describe(request, caller), **definition.shown(), **definition.counters(jobs)}
        if (found := definition.best(jobs)) is not None:
            answer["BestTrainingJob"] = definition.summary(found)
        return answer

    @operation("ListHyperParameterTuningJobs")
    def list_all(self, request: Payload, caller: Caller) -> Payload:
        answer = self._jobs.list_page(request, caller)
        for item in answer["HyperParameterTuningJobSummaries"]:
            record = self._jobs.require_arn(item["HyperParameterTuningJobArn"])
            item.update(TuningDefinition(record).counters(self._started_by(record)))
        return answer

    @operation("ListTrainingJobsForHyperParameterTuningJob")
    def list_training_jobs(self, request: Payload, caller: Caller) -> Payload:
        record = self._jobs.require(caller, request["HyperParameterTuningJobName"])
        definition = TuningDefinition(record)
        wanted = request.get("StatusEquals")
        jobs = [job for job in self._started_by(record) if wanted in (None, job["TrainingJobStatus"])]
        sort_by: str = request.get("SortBy", "Name")
        if sort_by == "FinalObjectiveMetricValue":  # jobs without one are not listed
            jobs = [job for job in jobs if definition.objective_value(job) is not None]
            jobs.sort(key=lambda job: definition.objective_value(job) or 0.0)
        else:
            member = {"Name": "TrainingJobName", "Status": "TrainingJobStatus"}.get(sort_by, sort_by)
            jobs.sort(key=lambda job: (job[member], job["TrainingJobName"]))
        if request.get("SortOrder") == "Descending":
            jobs.reverse()
        return page(jobs, request, "TrainingJobSummaries", "TrainingJobArn", definition.summary)

    def _new_run(self, record: Record) -> Run:
        definition = TuningDefinition(record)
        search = self._search(record, definition)
        return TuningRun(self._jobs, record, definition, search, self._training_jobs)

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
                # With all their hyperparameters: what was static there may be tuned here.
                observed += [replace(earlier.trial(job), values=job["HyperParameters"]) for job in jobs]
            elif (found := earlier.best(jobs)) is not None:
                values = {name: found["HyperParameters"].get(name, "") for name in definition.ranges}
                if coordinates(definition.ranges, values) is not None:
                    suggested.append(values)
        seed_name = f"{record['HyperParameterTuningJobArn']}/{record['CreationTime']}"
        return definition.search(seed_name, observed, suggested)

    def _parents(self, request: Payload, caller: Caller) -> list[Record]:
        parents = request.get("WarmStartConfig", {}).get("ParentHyperParameterTuningJobs", [])
        names = [parent.get("HyperParameterTuningJobName", "") for parent in parents]
        return [self._jobs.require(caller, name) for name in names]

    def _started_by(self, record: Record) -> list[Record]:
        return self._training_jobs.launched_by(record["HyperParameterTuningJobArn"])
