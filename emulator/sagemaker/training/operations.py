"""Training jobs: their operations, and their lives across restarts of the server."""

from __future__ import annotations

import functools
import re
import time
from typing import Any

from emulator.containers.mounts import OPT_ML
from emulator.platform.awsapi import Caller, Payload, operation
from emulator.platform.errors import refuse
from emulator.platform.host import Host
from emulator.platform.store import Record, Store
from emulator.sagemaker.artifacts import check_location
from emulator.sagemaker.resources import TRAINING_JOB, TUNING_JOB
from emulator.sagemaker.roles import Role
from emulator.sagemaker.runs import Jobs, Run
from emulator.sagemaker.training.job import STARTING, STOPPING, TrainingRun, add_transition
from emulator.sagemaker.training.metrics import read_points
from emulator.sagemaker.training.transfers import check_objects, model_location


class TrainingJobs(Jobs):
    """CreateTrainingJob, and the training jobs that tuning jobs start."""

    def __init__(self, host: Host, store: Store) -> None:
        super().__init__(store, TRAINING_JOB, "training")
        self._host = host
        self._store = store

    @operation("CreateTrainingJob")
    def create(self, request: Payload, caller: Caller) -> Payload:
        check_request(request)
        self.check_access(request, caller)
        return {"TrainingJobArn": self.launch(request, caller)["TrainingJobArn"]}

    def check_access(self, request: Payload, caller: Caller) -> None:
        """Refuse, as AWS does at once, a role that SageMaker cannot assume, and channels in which it finds nothing."""
        role = Role(self._host, request["RoleArn"], caller.region)
        for channel in request.get("InputDataConfig", []):
            check_objects(role, channel["DataSource"]["S3DataSource"]["S3Uri"])

    def launch(self, request: Payload, caller: Caller, **members: Any) -> Record:
        check_request(request)
        starting: Record = {"TrainingJobStatus": "InProgress"}
        add_transition(starting, "Starting", STARTING)
        artifacts = {"S3ModelArtifacts": model_location(request)}
        flags = ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining")
        shown = {
            **dict.fromkeys(flags, False),
            **request,
            "OutputDataConfig": {"KmsKeyId": "", **request["OutputDataConfig"]},
        }
        shown["StoppingCondition"] = {"MaxRuntimeInSeconds": 86_400, **request.get("StoppingCondition", {})}
        # As of a rule whose own job fails on AWS: the training goes on.
        error, name = {"RuleEvaluationStatus": "Error", "LastModifiedTime": time.time()}, "RuleConfigurationName"
        error["StatusDetails"] = "The local AWS evaluates no rules: they are images of AWS."
        for kind in ("DebugRule", "ProfilerRule"):
            if rules := request.get(f"{kind}Configurations"):
                starting[f"{kind}EvaluationStatuses"] = [{name: rule[name], **error} for rule in rules]
        record = self._jobs.create(caller, shown, **starting, ModelArtifacts=artifacts, **members)
        self._begin(record)
        return record

    def launched_by(self, tuning_job_arn: str) -> list[Record]:
        prefix = tuning_job_arn.replace(f":{TUNING_JOB.arn_type}/", f":{TRAINING_JOB.arn_type}/")
        return [job for job in self._jobs.all(f"{prefix}-") if job.get("TuningJobArn") == tuning_job_arn]

    def start(self) -> None:
        message = "The local AWS was restarted; the job begins anew"
        change = functools.partial(add_transition, status="Restarting", message=message)
        for record in self._jobs.all():
            if record["TrainingJobStatus"] == "InProgress":
                self._jobs.change(record["TrainingJobArn"], change)
        super().start()

    def metric_values(self, arn: str, metric: str) -> tuple[float, ...]:
        return tuple(point.value for point in read_points(self._store, arn) if point.name == metric)

    def _mark_stopping(self, record: Record) -> None:
        super()._mark_stopping(record)
        add_transition(record, "Stopping", STOPPING)

    def _new_run(self, record: Record) -> Run:
        return TrainingRun(self._jobs, record, self._host, self._store)


def check_request(request: Payload) -> None:
    """Refuse what botocore's model allows and SageMaker, or this local one, does not."""
    resources, algorithm = request.get("ResourceConfig", {}), request.get("AlgorithmSpecification", {})
    none = "InstanceType" not in resources or resources.get("InstanceCount", 0) < 1
    refuse(none, "ResourceConfig needs an InstanceType and an InstanceCount of at least 1.")
    refuse(not algorithm, "An AlgorithmSpecification is required.")
    refuse("TrainingImage" not in algorithm, "An AlgorithmSpecification needs a TrainingImage.")
    for definition in algorithm.get("MetricDefinitions", []):
        _check_regex(definition)
    _check_channels(request.get("InputDataConfig", []))
    _check_waiting_time(request)
    check_location(request["OutputDataConfig"]["S3OutputPath"])
    for member in ("CheckpointConfig", "DebugHookConfig", "TensorBoardOutputConfig"):
        if (config := request.get(member)) is not None:
            check_location(config["S3Uri" if member == "CheckpointConfig" else "S3OutputPath"])
            local = config.get("LocalPath", OPT_ML)
            below = re.fullmatch(rf"{OPT_ML}(/(?!\.\.?(/|$))[^/]+)*/?", local)
            refuse(not below, f"The local AWS keeps the LocalPath of a {member} below {OPT_ML} only, not in {local}.")


def _check_channels(channels: list[Payload]) -> None:
    names = [channel["ChannelName"] for channel in channels]
    refuse(len(set(names)) < len(names), f"Channel names must be unique: {', '.join(names)}.")
    for channel in channels:
        name = channel["ChannelName"]
        refuse(set(name) == {"."}, f"{name} is not a name for a channel.")
        refuse("S3DataSource" not in channel["DataSource"], f"The DataSource of channel {name} needs an S3DataSource.")
        check_location(channel["DataSource"]["S3DataSource"]["S3Uri"])


def _check_waiting_time(request: Payload) -> None:
    condition = request.get("StoppingCondition", {})
    waiting, running = condition.get("MaxWaitTimeInSeconds"), condition.get("MaxRuntimeInSeconds", 0)
    if request.get("EnableManagedSpotTraining"):
        refuse(
            waiting is None or waiting < running,
            "Managed spot training needs a MaxWaitTimeInSeconds that is greater than or equal to MaxRuntimeInSeconds.",
        )
    else:
        refuse(waiting is not None, "MaxWaitTimeInSeconds is only valid with EnableManagedSpotTraining.")


def _check_regex(definition: Payload) -> None:
    title = f"The regular expression of metric {definition['Name']}"
    try:
        refuse(re.compile(definition["Regex"]).groups < 1, f"{title} captures no group.")
    except re.error as error:
        refuse(True, f"{title} is invalid: {error}")
