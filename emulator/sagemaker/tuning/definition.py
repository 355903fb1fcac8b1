"""What a request for a tuning job asks for, checked as SageMaker does, and the training jobs that come of it."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from emulator.platform.awsapi import Payload, ServiceError
from emulator.platform.errors import refuse
from emulator.platform.store import Record
from emulator.sagemaker.runs import RUNNING
from emulator.sagemaker.training.operations import check_request
from emulator.sagemaker.tuning.ranges import Ranges, read_ranges
from emulator.sagemaker.tuning.search import Hyperband, MedianRule, Search, Trial

#: AWS's quotas: training jobs of a tuning job, and those that run at the same time.
MAX_TRAINING_JOBS = 750
MAX_PARALLEL_TRAINING_JOBS = 100
MAX_HYPERPARAMETERS = 100
MAX_RESOURCE = 20_000
#: SageMaker tells the program by this hyperparameter what it is tuned for.
OBJECTIVE_HYPERPARAMETER = "_tuning_objective_metric"
#: Members of the definition that CreateTrainingJob takes under the same names.
_PASSED_ON = (
    *("AlgorithmSpecification", "RoleArn", "InputDataConfig", "OutputDataConfig", "ResourceConfig"),
    *("StoppingCondition", "EnableNetworkIsolation", "EnableInterContainerTrafficEncryption"),
    *("EnableManagedSpotTraining", "CheckpointConfig", "RetryStrategy", "Environment"),
)
#: Members of a training job that lists of those of a tuning job show.
_SHOWN = (
    *("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingStartTime", "TrainingEndTime"),
    *("TrainingJobStatus", "FailureReason", "TunedHyperParameters"),
)


def resource_config(training: Payload) -> Payload:
    """Say on what training jobs run: of several types to choose from the first, which this machine always has."""
    if (tuned := training.get("HyperParameterTuningResourceConfig")) is None:
        return dict(training.get("ResourceConfig", {}))
    chosen = {**tuned, **tuned.get("InstanceConfigs", [{}])[0]}
    members = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")
    return {member: chosen[member] for member in members if member in chosen}


class TuningDefinition:
    """A request of CreateHyperParameterTuningJob, or the record made of it; ServiceError for one that is refused."""

    def __init__(self, request: Payload) -> None:
        self._request = request
        self._config = request["HyperParameterTuningJobConfig"]
        definition = request.get("TrainingJobDefinition", {})
        refuse(not definition, "A TrainingJobDefinition is required.")
        both = {"ResourceConfig", "HyperParameterTuningResourceConfig"} <= definition.keys()
        refuse(both, "Provide either a ResourceConfig or a HyperParameterTuningResourceConfig, and not both.")
        self._training: Payload = request["TrainingJobDefinition"]
        self.static: dict[str, str] = self._training.get("StaticHyperParameters", {})
        self.ranges: Ranges = read_ranges(self._config.get("ParameterRanges", {}))
        self.objective: Payload = self._read_objective()
        limits = self._config["ResourceLimits"]
        self.parallel_jobs: int = limits["MaxParallelTrainingJobs"]
        self.max_seconds: int | None = limits.get("MaxRuntimeInSeconds")
        self.max_jobs = self._read_max_jobs(limits.get("MaxNumberOfTrainingJobs"))
        self._check_names()
        self._check_strategy()

    @property
    def minimize(self) -> bool:
        return bool(self.objective["Type"] == "Minimize")

    def search(self, seed_name: str, observed: Sequence[Trial], suggested: Sequence[Mapping[str, str]]) -> Search:
        """The search; `seed_name` stands in where the request gives no RandomSeed."""
        seed = self._config.get("RandomSeed", zlib.crc32(seed_name.encode()))
        return Search(self._config["Strategy"], self.ranges, self.minimize, seed, tuple(observed), tuple(suggested))

    def stopping_rule(self, name: str) -> Hyperband | MedianRule | None:
        """What ends training jobs early; `name` shares them out over Hyperband's brackets where there is no seed."""
        if self._config["Strategy"] == "Hyperband":
            least, most = self._resources()
            seed = self._config.get("RandomSeed", name)
            return Hyperband(minimize=self.minimize, min_resource=least, max_resource=most, name=str(seed))
        auto = self._config.get("TrainingJobEarlyStoppingType") == "Auto"
        return MedianRule(minimize=self.minimize) if auto else None

    def training_request(self, tuning_job: str, number: int, values: Mapping[str, str]) -> Payload:
        """The request for training job `number`, counted from 1, with these tuned hyperparameters."""
        digest = hashlib.sha256(f"{tuning_job}/{number}/{sorted(values.items())}".encode()).hexdigest()
        request: dict[str, Any] = {member: self._training[member] for member in _PASSED_ON if member in self._training}
        if "Tags" in self._request:
            request["Tags"] = self._request["Tags"]
        request["ResourceConfig"] = resource_config(self._training)
        name = f"{tuning_job}-{number:03d}-{digest[:8]}"
        return {"TrainingJobName": name, **request, "HyperParameters": {**self._told, **values}}

    @property
    def _told(self) -> dict[str, str]:
        return {**self.static, OBJECTIVE_HYPERPARAMETER: self.objective["MetricName"]}

    def shown(self) -> Payload:
        """Return what the description of a tuning job has beyond the request."""
        output = {"KmsKeyId": "", **self._training["OutputDataConfig"]}
        training = {**self._training, "StaticHyperParameters": self._told, "OutputDataConfig": output}
        if "InstanceConfigs" not in training.get("HyperParameterTuningResourceConfig", {}):
            training["ResourceConfig"] = resource_config(self._training)
        config = {"TrainingJobEarlyStoppingType": "Off", **self._config}
        return {"TrainingJobDefinition": training, "HyperParameterTuningJobConfig": config}

    def check_training(self) -> None:
        check_request(self.training_request(self._request["HyperParameterTuningJobName"], 1, {}))

    def objective_value(self, job: Record) -> float | None:
        """The objective of a training job that has ended: the last value of its log; None where there is none."""
        if job["TrainingJobStatus"] not in ("Completed", "Stopped"):
            return None
        metrics = {item["MetricName"]: item["Value"] for item in job.get("FinalMetricDataList", [])}
        return metrics.get(self.objective["MetricName"])

    def best(self, jobs: Sequence[Record]) -> Record | None:
        """The training job with the best objective; of equals the first."""
        values = [(value, job) for job in jobs if (value := self.objective_value(job)) is not None]
        choose = min if self.minimize else max
        return choose(values, key=lambda pair: pair[0])[1] if values else None

    def trial(self, job: Record, values: tuple[float, ...] = ()) -> Trial:
        ended = job["TrainingJobStatus"] not in RUNNING
        return Trial(job["TrainingJobName"], job["TunedHyperParameters"], self.objective_value(job), ended, values)

    def summary(self, job: Record) -> Payload:
        answer = {member: job[member] for member in _SHOWN if member in job}
        if (value := self.objective_value(job)) is not None:
            answer["FinalHyperParameterTuningJobObjectiveMetric"] = {**self.objective, "Value": value}
        return {**answer, "ObjectiveStatus": self._objective_status(job)}

    def counters(self, jobs: Sequence[Record]) -> Payload:
        statuses = Counter(job["TrainingJobStatus"] for job in jobs)
        objectives = Counter(self._objective_status(job) for job in jobs)
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

    def _objective_status(self, job: Record) -> str:
        if job["TrainingJobStatus"] in RUNNING:
            return "Pending"
        return "Failed" if self.objective_value(job) is None else "Succeeded"

    def check_parent(self, parent: Record, kind: str) -> None:
        name, earlier = parent["HyperParameterTuningJobName"], TuningDefinition(parent)
        running = parent["HyperParameterTuningJobStatus"] in RUNNING
        refuse(running, f"The parent tuning job {name} has not ended yet.")
        refuse(earlier.objective != self.objective, f"The parent tuning job {name} has another objective.")
        refuse(
            len(earlier.static) + len(earlier.ranges) != len(self.static) + len(self.ranges),
            f"The number of static and tuned hyperparameters must be the same as in the parent tuning job {name}.",
        )
        other = kind == "IdenticalDataAndAlgorithm" and earlier._image != self._image
        refuse(other, f"The training image must be the same as in the parent tuning job {name}.")

    @property
    def _image(self) -> str | None:
        image: str | None = self._training["AlgorithmSpecification"].get("TrainingImage")
        return image

    def _read_objective(self) -> Payload:
        objective: Payload = self._config.get("HyperParameterTuningJobObjective", {})
        refuse(not objective, "A HyperParameterTuningJobObjective is required.")
        defined = [metric["Name"] for metric in self._training["AlgorithmSpecification"].get("MetricDefinitions", [])]
        refuse(
            objective["MetricName"] not in defined,
            f"The objective metric {objective['MetricName']} is not among the MetricDefinitions of the training "
            f"job: {', '.join(defined) or 'there are none'}.",
        )
        return objective

    def _read_max_jobs(self, given: int | None) -> int:
        if self._config["Strategy"] == "Grid":
            numeric = [name for name, searched in self.ranges.items() if not hasattr(searched, "choices")]
            refuse(numeric, "The strategy Grid takes categorical ranges only.")
            size = prod(len(searched.choices) for searched in self.ranges.values())
            refuse(
                given not in (None, size),
                f"MaxNumberOfTrainingJobs ({given}) must be left out or equal the number of combinations ({size}).",
            )
            given = size
        refuse(not (given or self.max_seconds), "MaxNumberOfTrainingJobs or MaxRuntimeInSeconds is required.")
        most = given or MAX_TRAINING_JOBS
        if most > MAX_TRAINING_JOBS or self.parallel_jobs > MAX_PARALLEL_TRAINING_JOBS:
            raise ServiceError(
                "ResourceLimitExceeded",
                f"A tuning job has at most {MAX_TRAINING_JOBS} training jobs, {MAX_PARALLEL_TRAINING_JOBS} at a time.",
            )
        refuse(
            self.parallel_jobs > most,
            f"MaxParallelTrainingJobs ({self.parallel_jobs}) must not exceed MaxNumberOfTrainingJobs ({most}).",
        )
        return most

    def _check_names(self) -> None:
        both = sorted(self.static.keys() & self.ranges.keys())
        refuse(both, f"Hyperparameters with both a range and a static value: {', '.join(both)}.")
        reserved = OBJECTIVE_HYPERPARAMETER in {*self.static, *self.ranges}
        refuse(reserved, f"The hyperparameter {OBJECTIVE_HYPERPARAMETER} is reserved.")
        count = len(self.static) + len(self.ranges)
        refuse(
            count > MAX_HYPERPARAMETERS,
            f"At most {MAX_HYPERPARAMETERS} hyperparameters, static and tuned, are allowed.",
        )

    def _check_strategy(self) -> None:
        if self._config["Strategy"] == "Hyperband":
            refuse(
                self._config.get("TrainingJobEarlyStoppingType") == "Auto",
                "TrainingJobEarlyStoppingType must be Off with the strategy Hyperband, which stops jobs by itself.",
            )
            self._resources()
        else:
            refuse("StrategyConfig" in self._config, "StrategyConfig is only valid with the strategy Hyperband.")

    def _resources(self) -> tuple[int, int]:
        given = self._config.get("StrategyConfig", {}).get("HyperbandStrategyConfig", {})
        refuse("MaxResource" not in given, "Hyperband needs a MaxResource in its HyperbandStrategyConfig.")
        least, most = given.get("MinResource", 1), given["MaxResource"]
        refuse(least >= most, f"MinResource ({least}) must be less than MaxResource ({most}).")
        refuse(most > MAX_RESOURCE, f"MaxResource ({most}) must not exceed {MAX_RESOURCE}.")
        return least, most
