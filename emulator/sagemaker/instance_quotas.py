"""How many instances of a type the account may use for one purpose: ResourceLimitExceeded, as SageMaker says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

from emulator.platform.awsapi import Caller, Payload, ServiceError
from emulator.platform.store import Record, Store
from emulator.quotas.service import ALL_ENDPOINTS, SERVERLESS_CONCURRENCY, Quotas, instances
from emulator.sagemaker.resources import (
    ENDPOINT,
    ENDPOINT_CONFIG,
    NOTEBOOK_INSTANCE,
    PROCESSING_JOB,
    TRAINING_JOB,
    TRANSFORM_JOB,
    Kind,
    Resources,
)
from emulator.sagemaker.tuning.definition import resource_config

#: Instances by the name of the quota that they count for.
Usage = Counter[str]

#: The operations that start instances.
LIMITED = (
    *("CreateEndpoint", "UpdateEndpoint", "UpdateEndpointWeightsAndCapacities", "CreateTrainingJob"),
    *("CreateHyperParameterTuningJob", "CreateTransformJob", "CreateProcessingJob"),
    *("CreateNotebookInstance", "StartNotebookInstance"),
)

_AT_REST = ("Completed", "Failed", "Stopped")
_ADVICE = (
    "Please use AWS Service Quotas to request an increase for this quota. If AWS Service Quotas is not available, "
    "contact AWS support to request an increase for this quota."
)


class InstanceQuotas:
    def __init__(self, store: Store, quotas: Quotas) -> None:
        self._store = store
        self._quotas = quotas

    def check(self, operation: str, request: Payload, caller: Caller) -> None:
        wanted = +self._wanted(operation, request, caller)
        used = self._used(caller) if wanted else Counter()
        for quota, delta in wanted.items():
            limit = self._quotas.limit(quota)
            if used[quota] + delta > limit:
                unit = "" if quota == SERVERLESS_CONCURRENCY else " Instances"
                raise ServiceError(
                    "ResourceLimitExceeded",
                    f"The account-level service limit '{quota}' is {limit}{unit}, with current utilization of "
                    f"{used[quota]}{unit} and a request delta of {delta}{unit}. {_ADVICE}",
                )

    def _wanted(self, operation: str, request: Payload, caller: Caller) -> Usage:
        """What an operation adds; nothing where the request is not good enough to tell."""
        match operation:
            case "CreateEndpoint" | "UpdateEndpoint":
                # Blue/green: the whole new fleet comes up beside the old one, in the size that the endpoint has now.
                retained = self._fleet(request, caller) if request.get("RetainAllVariantProperties") else []
                counts = {variant["VariantName"]: variant["InstanceCount"] for variant in retained}
                config = self._record(ENDPOINT_CONFIG, request, caller)
                wanted = _of_variants(
                    (variant, counts.get(variant["VariantName"], variant.get("InitialInstanceCount", 0)))
                    for variant in config.get("ProductionVariants", [])
                )
                live = ((spec["Variant"], 0) for spec in self._fleet(request, caller))
                wanted[SERVERLESS_CONCURRENCY] -= _of_variants(live)[SERVERLESS_CONCURRENCY]  # they are not doubled
                return wanted
            case "UpdateEndpointWeightsAndCapacities":
                changes = request["DesiredWeightsAndCapacities"]
                desired = {change["VariantName"]: change.get("DesiredInstanceCount", 0) for change in changes}
                return _of_variants(
                    (spec["Variant"], max(0, desired.get(spec["VariantName"], 0) - spec["InstanceCount"]))
                    for spec in self._fleet(request, caller)
                    if "ServerlessConfig" not in spec["Variant"]
                )
            case "CreateHyperParameterTuningJob":
                parallel = request["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxParallelTrainingJobs"]
                definition = request.get("TrainingJobDefinition", {})
                trial = _of_training({**definition, "ResourceConfig": resource_config(definition)})
                return Counter({quota: number * parallel for quota, number in trial.items()})
            case "StartNotebookInstance":
                return _of_notebook(self._record(NOTEBOOK_INSTANCE, request, caller))
        return next(usage(request) for kind, usage in _STARTED.items() if operation == f"Create{kind.member}")

    def _used(self, caller: Caller) -> Usage:
        total: Usage = Counter()
        for record in self._records(ENDPOINT, caller):
            fleets = [record[fleet]["Variants"] for fleet in ("Fleet", "NextFleet") if fleet in record]
            total += _of_variants((spec["Variant"], spec["InstanceCount"]) for fleet in fleets for spec in fleet)
        for kind, usage in _STARTED.items():
            for record in self._records(kind, caller):
                total += usage(record) if record[kind.status_member] not in _AT_REST else Counter()
        return total

    def _records(self, kind: Kind, caller: Caller) -> list[Record]:
        return Resources(self._store, kind).all(kind.arn(caller, ""))

    def _record(self, kind: Kind, request: Payload, caller: Caller) -> Record:
        return Resources(self._store, kind).get(kind.arn(caller, request[kind.name_member])) or {}

    def _fleet(self, request: Payload, caller: Caller) -> list[Payload]:
        variants: list[Payload] = self._record(ENDPOINT, request, caller).get("Fleet", {}).get("Variants", [])
        return variants


def _of_variants(counts: Iterable[tuple[Payload, int]]) -> Usage:
    total: Usage = Counter()
    for variant, count in counts:
        if serverless := variant.get("ServerlessConfig"):
            total[SERVERLESS_CONCURRENCY] += serverless["MaxConcurrency"]
            continue
        total += Counter({instances(variant["InstanceType"], "endpoint"): count, ALL_ENDPOINTS: count})
    return total


def _of_training(job: Payload) -> Usage:
    resources = job.get("ResourceConfig", {})
    purpose = "spot training job" if job.get("EnableManagedSpotTraining") else "training job"
    return Counter({instances(resources.get("InstanceType", ""), purpose): resources.get("InstanceCount", 0)})


def _of_resources(member: str, purpose: str, job: Payload) -> Usage:
    resources = job[member].get("ClusterConfig", job[member])
    return Counter({instances(resources.get("InstanceType", ""), purpose): resources.get("InstanceCount", 0)})


def _of_notebook(notebook: Payload) -> Usage:
    return Counter({instances(notebook["InstanceType"], "notebook instance"): 1} if notebook else {})


#: What starts instances when it is made, and how many.
_STARTED: dict[Kind, Callable[[Payload], Usage]] = {
    TRAINING_JOB: _of_training,
    TRANSFORM_JOB: partial(_of_resources, "TransformResources", "transform job"),
    PROCESSING_JOB: partial(_of_resources, "ProcessingResources", "processing job"),
    NOTEBOOK_INSTANCE: _of_notebook,
}
