"""How many instances of a type the account may use for one purpose: ResourceLimitExceeded, as SageMaker says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from emulator.platform.awsapi import Caller, Payload, ServiceError
from emulator.platform.store import Record, Store
from emulator.quotas.service import ALL_ENDPOINTS, Quotas, instances
from emulator.sagemaker.resources import (
    ENDPOINT,
    ENDPOINT_CONFIG,
    NOTEBOOK_INSTANCE,
    TRAINING_JOB,
    TRANSFORM_JOB,
    Resources,
)

#: Instances by type and purpose.
Usage = Counter[tuple[str, str]]

#: The operations that start instances.
LIMITED = (
    *("CreateEndpoint", "UpdateEndpoint", "UpdateEndpointWeightsAndCapacities", "CreateTrainingJob"),
    *("CreateHyperParameterTuningJob", "CreateTransformJob", "CreateNotebookInstance", "StartNotebookInstance"),
)

_ADVICE = (
    "Please use AWS Service Quotas to request an increase for this quota. If AWS Service Quotas is not available, "
    "contact AWS support to request an increase for this quota."
)
_ACTIVE = ("InProgress", "Stopping")


class InstanceQuotas:
    """Counts what is in use and refuses requests for more than there may be."""

    def __init__(self, store: Store, quotas: Quotas) -> None:
        self._quotas = quotas
        self._endpoints = Resources(store, ENDPOINT)
        self._configs = Resources(store, ENDPOINT_CONFIG)
        self._training_jobs = Resources(store, TRAINING_JOB)
        self._transform_jobs = Resources(store, TRANSFORM_JOB)
        self._notebooks = Resources(store, NOTEBOOK_INSTANCE)

    def check(self, operation: str, request: Payload, caller: Caller) -> None:
        """Refuse an operation that would use more instances than the account may have in the region."""
        wanted = self._wanted(operation, request, caller)
        claims = [(instances(*key), self._used(key[1], caller)[key], delta) for key, delta in wanted.items()]
        if hosts := sum(delta for (_, purpose), delta in wanted.items() if purpose == "endpoint"):
            claims.append((ALL_ENDPOINTS, self._used("endpoint", caller).total(), hosts))
        for quota, used, delta in claims:
            limit = self._quotas.limit(quota)
            if used + delta > limit:
                raise ServiceError(
                    "ResourceLimitExceeded",
                    f"The account-level service limit '{quota}' is {limit} Instances, with current utilization of "
                    f"{used} Instances and a request delta of {delta} Instances. {_ADVICE}",
                )

    def _wanted(self, operation: str, request: Payload, caller: Caller) -> Usage:
        """What an operation adds; nothing where the request is not good enough to tell."""
        match operation:
            case "CreateEndpoint" | "UpdateEndpoint":
                config = self._configs.get(ENDPOINT_CONFIG.arn(caller, request["EndpointConfigName"]))
                # Blue/green: the whole new fleet comes up beside the old one, in the size that the endpoint has now.
                live = self._live_counts(request, caller) if request.get("RetainAllVariantProperties") else {}
                variants = (config or {}).get("ProductionVariants", [])
                return _of_variants(
                    (variant, live.get(variant["VariantName"], variant.get("InitialInstanceCount", 1)))
                    for variant in variants
                )
            case "UpdateEndpointWeightsAndCapacities":
                return self._added(request, caller)
            case "CreateTrainingJob":
                return _of_training(request)
            case "CreateHyperParameterTuningJob":
                parallel = request["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxParallelTrainingJobs"]
                trial = _of_training(request.get("TrainingJobDefinition", {}))
                return Counter({key: number * parallel for key, number in trial.items()})
            case "CreateTransformJob":
                return _of_transform(request)
            case "CreateNotebookInstance":
                return Counter({(request["InstanceType"], "notebook instance"): 1})
            case "StartNotebookInstance":
                record = self._notebooks.get(NOTEBOOK_INSTANCE.arn(caller, request["NotebookInstanceName"]))
                return Counter({(record["InstanceType"], "notebook instance"): 1} if record else {})
        return Counter()

    def _live_counts(self, request: Payload, caller: Caller) -> dict[str, int]:
        endpoint = self._endpoints.get(ENDPOINT.arn(caller, request["EndpointName"])) or {}
        return {v["VariantName"]: v["InstanceCount"] for v in endpoint.get("Fleet", {}).get("Variants", [])}

    def _added(self, request: Payload, caller: Caller) -> Usage:
        endpoint = self._endpoints.get(ENDPOINT.arn(caller, request["EndpointName"])) or {}
        desired = {d["VariantName"]: d.get("DesiredInstanceCount", 0) for d in request["DesiredWeightsAndCapacities"]}
        return _of_variants(
            (spec["Variant"], max(0, desired.get(spec["VariantName"], 0) - spec["InstanceCount"]))
            for spec in endpoint.get("Fleet", {}).get("Variants", [])
        )

    def _used(self, purpose: str, caller: Caller) -> Usage:
        total: Usage = Counter()
        if purpose == "endpoint":
            for record in self._of_region(self._endpoints, caller):
                specs = [spec for fleet in ("Fleet", "NextFleet") for spec in record.get(fleet, {}).get("Variants", [])]
                total += _of_variants((spec["Variant"], spec["InstanceCount"]) for spec in specs)
        elif purpose == "notebook instance":
            for record in self._of_region(self._notebooks, caller):
                total[record["InstanceType"], purpose] += record["NotebookInstanceStatus"] not in ("Stopped", "Failed")
        elif purpose == "transform job":
            for record in self._of_region(self._transform_jobs, caller):
                total += _of_transform(record) if record["TransformJobStatus"] in _ACTIVE else Counter()
        else:
            for record in self._of_region(self._training_jobs, caller):
                total += _of_training(record) if record["TrainingJobStatus"] in _ACTIVE else Counter()
        return total

    @staticmethod
    def _of_region(resources: Resources, caller: Caller) -> list[Record]:
        return resources.all(resources.kind.arn(caller, ""))


def _of_variants(counts: Iterable[tuple[Payload, int]]) -> Usage:
    total: Usage = Counter()
    for variant, count in counts:
        if "InstanceType" in variant:  # a serverless one has none
            total[variant["InstanceType"], "endpoint"] += count
    return +total


def _of_training(job: Payload) -> Usage:
    resources = job.get("ResourceConfig", {})
    purpose = "spot training job" if job.get("EnableManagedSpotTraining") else "training job"
    return Counter({(resources.get("InstanceType", ""), purpose): resources.get("InstanceCount", 0)})


def _of_transform(job: Payload) -> Usage:
    resources = job["TransformResources"]
    return Counter({(resources["InstanceType"], "transform job"): resources["InstanceCount"]})
