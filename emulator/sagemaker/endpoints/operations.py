"""Endpoints: created, updated blue/green, scaled and deleted, with real fleets behind them."""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from botocore.model import ServiceModel

from emulator.autoscaling import service as autoscaling
from emulator.platform.awsapi import Caller, Payload, ServiceError, operation
from emulator.platform.host import Host
from emulator.platform.store import Record, Store
from emulator.sagemaker.endpoints.fleet import Fleet, FleetError
from emulator.sagemaker.models import containers
from emulator.sagemaker.resources import ENDPOINT, ENDPOINT_CONFIG, MODEL, Resources, project

logger = logging.getLogger(__name__)

#: Between attempts to bring an endpoint back after a restart of the server.
_RECOVERY_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
_SETTLED = ("InService", "Failed", "OutOfService", "UpdateRollbackFailed")


class Endpoints:
    """Create, Describe, List, Update and DeleteEndpoint, UpdateEndpointWeightsAndCapacities.

    An endpoint's record holds, beside what AWS shows, the fleet that serves (``Fleet``) and the one that is to
    replace it (``NextFleet``), each complete with its models: an endpoint outlives the model and the configuration
    that it was made from, and the server.
    """

    def __init__(self, host: Host, store: Store, model: ServiceModel) -> None:
        self._host = host
        self._store = store
        self._model = model
        self._endpoints = Resources(store, ENDPOINT)
        self._configs = Resources(store, ENDPOINT_CONFIG)
        self._models = Resources(store, MODEL)
        self._fleets: dict[tuple[str, str], Fleet] = {}
        self._pending: set[Fleet] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    # The operations

    @operation("CreateEndpoint")
    def create(self, request: Payload, caller: Caller) -> Payload:
        config = self._configs.require(caller, request["EndpointConfigName"])
        record = self._endpoints.create(
            caller,
            _with_deployment_config(request),
            EndpointStatus="Creating",
            NextFleet=self._fleet_spec(config, caller),
        )
        self._in_background(self._roll_out, record["EndpointArn"])
        return {"EndpointArn": record["EndpointArn"]}

    @operation("UpdateEndpoint")
    def update(self, request: Payload, caller: Caller) -> Payload:
        arn = self._endpoints.require(caller, request["EndpointName"])["EndpointArn"]
        config = self._configs.require(caller, request["EndpointConfigName"])
        spec = self._fleet_spec(config, caller)

        def change(record: Record) -> None:
            _require_in_service(record)
            if request.get("RetainAllVariantProperties"):
                excluded = {item["VariantPropertyType"] for item in request.get("ExcludeRetainedVariantProperties", [])}
                _retain_properties(record["Fleet"], spec, excluded)
            if not request.get("RetainDeploymentConfig"):
                record.pop("LastDeploymentConfig", None)
            record.update(_with_deployment_config({k: request[k] for k in ("DeploymentConfig",) if k in request}))
            record.update(EndpointStatus="Updating", NextFleet=spec)
            record.pop("FailureReason", None)

        self._endpoints.change(arn, change)
        self._in_background(self._roll_out, arn)
        return {"EndpointArn": arn}

    @operation("UpdateEndpointWeightsAndCapacities")
    def update_weights_and_capacities(self, request: Payload, caller: Caller) -> Payload:
        arn = self._endpoints.require(caller, request["EndpointName"])["EndpointArn"]
        previous: Payload = {}

        def change(record: Record) -> None:
            _require_in_service(record)
            previous.update(record["Fleet"])
            variants = {variant["VariantName"]: dict(variant) for variant in record["Fleet"]["Variants"]}
            for desired in request["DesiredWeightsAndCapacities"]:
                _apply_desired(variants, desired)
            record["Fleet"] = {**record["Fleet"], "Variants": list(variants.values())}
            record["EndpointStatus"] = "Updating"
            record.pop("FailureReason", None)

        self._endpoints.change(arn, change)
        self._in_background(self._resize, arn, previous)
        return {"EndpointArn": arn}

    @operation("DeleteEndpoint")
    def delete(self, request: Payload, caller: Caller) -> None:
        arn = self._endpoints.require(caller, request["EndpointName"])["EndpointArn"]

        def change(record: Record) -> None:
            if record["EndpointStatus"] not in _SETTLED:
                raise ServiceError("ValidationException", f'Cannot update in-progress endpoint "{arn}".')
            record["EndpointStatus"] = "Deleting"

        self._endpoints.change(arn, change)
        self._in_background(self._remove, arn)

    @operation("DescribeEndpoint")
    def describe(self, request: Payload, caller: Caller) -> Payload:
        record = self._endpoints.require(caller, request["EndpointName"])
        answer = project(record, self._model.operation_model("DescribeEndpoint").output_shape)
        if "Fleet" in record:
            fleet = self._fleets.get(_key(record))
            answer["ProductionVariants"] = [_summary(spec, fleet) for spec in record["Fleet"]["Variants"]]
        if "Fleet" in record and "NextFleet" in record:
            answer["PendingDeploymentSummary"] = {
                "EndpointConfigName": record["NextFleet"]["EndpointConfigName"],
                "StartTime": record["LastModifiedTime"],
            }
        return answer

    @operation("ListEndpoints")
    def list_all(self, request: Payload, caller: Caller) -> Payload:
        return self._endpoints.list_page(caller, request, self._model, "ListEndpoints")

    # What the runtime and the scaling of endpoints ask

    def fleet(self, region: str, name: str) -> Fleet | None:
        """Who serves an endpoint; None when there is none of exactly this name or it never was in service."""
        return self._fleets.get((region, name))

    # Life cycle

    def start(self) -> None:
        """Take up what an earlier life of the server left: bring endpoints back, finish what was under way."""
        for record in self._endpoints.all():
            arn = record["EndpointArn"]
            if record["EndpointStatus"] == "Deleting":
                self._in_background(self._remove, arn)
                continue
            if "Fleet" in record:
                fleet = self._new_fleet(record, record["Fleet"])
                self._fleets[_key(record)] = fleet
                self._in_background(self._recover, arn, fleet)
            if "NextFleet" in record:
                self._in_background(self._roll_out, arn)

    def stop(self) -> None:
        """Stop every instance; the records stay as they are, so that `start` brings the endpoints back."""
        self._stopping.set()
        with self._lock:
            fleets = [*self._fleets.values(), *self._pending]
        threads = [threading.Thread(target=fleet.stop, daemon=True) for fleet in fleets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _in_background(self, work: Callable[..., None], arn: str, *arguments: object) -> None:
        def run() -> None:
            try:
                work(arn, *arguments)
            except Exception:
                if not self._stopping.is_set():
                    logger.exception("%s: %s failed", arn, work.__name__)

        threading.Thread(target=run, name=f"{work.__name__} {arn}", daemon=True).start()

    def _roll_out(self, arn: str) -> None:
        """Bring up the next fleet; when it is healthy let it take over, otherwise leave everything as it was."""
        record = self._endpoints.require_arn(arn)
        spec = record["NextFleet"]
        fleet = self._new_fleet(record, spec)
        with self._lock:
            self._pending.add(fleet)
        try:
            fleet.start()
        except FleetError as error:
            fleet.stop()
            if not self._stopping.is_set():
                fleet.remove_files()
                self._settle(arn, failure=str(error))
            return
        finally:
            with self._lock:
                self._pending.discard(fleet)
        if self._stopping.is_set():
            fleet.stop()
            return
        with self._lock:
            replaced = self._fleets.get(_key(record))
            self._fleets[_key(record)] = fleet
        self._settle(arn, spec)
        if replaced is not None:
            gone = set(replaced.variants) - set(fleet.variants)
            self._endpoints.insist(lambda: self._forget_scaling(arn, record, gone))
            replaced.stop(drain=True)
            replaced.remove_files()

    def _settle(self, arn: str, deployed: Payload | None = None, failure: str | None = None) -> None:
        """Record the outcome of a roll-out."""

        def change(record: Record) -> None:
            record.pop("NextFleet", None)
            if deployed is not None:
                record.update(Fleet=deployed, EndpointConfigName=deployed["EndpointConfigName"])
            if failure is not None:
                record["FailureReason"] = failure
            record["EndpointStatus"] = "InService" if "Fleet" in record else "Failed"

        self._endpoints.insist(lambda: self._endpoints.change(arn, change))
        if failure is not None:
            logger.warning("%s: %s", arn, failure)

    def _resize(self, arn: str, previous: Payload) -> None:
        record = self._endpoints.require_arn(arn)
        fleet = self._fleets[_key(record)]
        failure = None
        try:
            for spec in record["Fleet"]["Variants"]:
                variant = fleet.variants[spec["VariantName"]]
                variant.resize(spec["InstanceCount"])
                variant.weight = spec["Weight"]
        except FleetError as error:
            if self._stopping.is_set():
                return
            failure = str(error)
            for spec in previous["Variants"]:
                # Instances that came up before one of another variant failed go again.
                fleet.variants[spec["VariantName"]].resize(spec["InstanceCount"])
                fleet.variants[spec["VariantName"]].weight = spec["Weight"]
        self._settle(arn, previous if failure else None, failure)

    def _recover(self, arn: str, fleet: Fleet) -> None:
        """Bring a fleet back after a restart of the server, however long it takes."""

        def change(record: Record) -> None:
            record["EndpointStatus"] = "Updating" if "NextFleet" in record else "InService"

        self._endpoints.insist(lambda: self._endpoints.change(arn, change))
        for attempt in range(10**6):
            try:
                fleet.start()
                return
            except FleetError as error:
                if self._stopping.is_set() or fleet not in self._fleets.values():
                    return
                logger.warning("%s is not back yet: %s", arn, error)
            if self._stopping.wait(_RECOVERY_PAUSES[min(attempt, len(_RECOVERY_PAUSES) - 1)]):
                return

    def _remove(self, arn: str) -> None:
        record = self._endpoints.require_arn(arn)
        with self._lock:
            fleet = self._fleets.pop(_key(record), None)
        if fleet is not None:
            fleet.stop()
        variants = {v["VariantName"] for v in record.get("Fleet", {}).get("Variants", [])}
        self._endpoints.insist(lambda: self._forget_scaling(arn, record, variants))
        shutil.rmtree(self._directory(record), ignore_errors=True)
        self._endpoints.insist(lambda: self._endpoints.delete(arn))

    def _forget_scaling(self, arn: str, record: Record, variants: set[str]) -> None:
        """Deregister the scalable targets of variants that are gone, as SageMaker does."""
        resource_ids = [f"endpoint/{record['EndpointName']}/variant/{variant}" for variant in variants]
        autoscaling.deregister(self._store, _region(arn), "sagemaker", resource_ids)

    def _fleet_spec(self, config: Record, caller: Caller) -> Payload:
        return {
            "Id": uuid.uuid4().hex[:12],
            "EndpointConfigName": config["EndpointConfigName"],
            "CreationTime": time.time(),
            "Variants": [
                {
                    "VariantName": variant["VariantName"],
                    "Weight": variant["InitialVariantWeight"],
                    "InstanceCount": variant.get("InitialInstanceCount", 1),  # serverless: one does the work
                    "Variant": variant,
                    "Model": self._models.require(caller, variant["ModelName"]),
                }
                for variant in config["ProductionVariants"]
            ],
        }

    def _new_fleet(self, record: Record, spec: Payload) -> Fleet:
        region = _region(record["EndpointArn"])
        return Fleet(self._host, record["EndpointName"], region, spec, self._directory(record))

    def _directory(self, record: Record) -> Path:
        return self._host.folder / "endpoints" / _region(record["EndpointArn"]) / record["EndpointName"]


def _region(arn: str) -> str:
    return arn.split(":")[3]


def _key(record: Record) -> tuple[str, str]:
    return _region(record["EndpointArn"]), record["EndpointName"]


def _with_deployment_config(request: Payload) -> Payload:
    """DescribeEndpoint calls it LastDeploymentConfig."""
    return {"LastDeploymentConfig" if k == "DeploymentConfig" else k: v for k, v in request.items()}


def _require_in_service(record: Record) -> None:
    if record["EndpointStatus"] == "Failed":
        raise ServiceError(
            "ValidationException", f'Endpoint "{record["EndpointArn"]}" has failed; it can only be deleted.'
        )
    if record["EndpointStatus"] != "InService":
        raise ServiceError("ValidationException", f'Cannot update in-progress endpoint "{record["EndpointArn"]}".')


def _retain_properties(current: Payload, spec: Payload, excluded: set[str]) -> None:
    """Carry instance counts and weights of variants with the same name over to a new fleet."""
    live = {variant["VariantName"]: variant for variant in current["Variants"]}
    for variant in spec["Variants"]:
        if variant["VariantName"] not in live:
            continue
        for member, property_type in (("Weight", "DesiredWeight"), ("InstanceCount", "DesiredInstanceCount")):
            if property_type not in excluded:
                variant[member] = live[variant["VariantName"]][member]


def _apply_desired(variants: dict[str, Payload], desired: Payload) -> None:
    name = desired["VariantName"]
    if name not in variants:
        raise ServiceError("ValidationException", f"Variant {name} not found. There are: {', '.join(variants)}.")
    if "ServerlessUpdateConfig" in desired:
        raise ServiceError(
            "NotImplementedException", "The local AWS does not change the size of serverless variants.", 501
        )
    if "DesiredInstanceCount" in desired:
        if desired["DesiredInstanceCount"] < 1:
            raise ServiceError("ValidationException", f"Variant {name} needs a DesiredInstanceCount of at least 1.")
        variants[name]["InstanceCount"] = desired["DesiredInstanceCount"]
    if "DesiredWeight" in desired:
        variants[name]["Weight"] = desired["DesiredWeight"]


def _summary(spec: Payload, fleet: Fleet | None) -> Payload:
    """A variant as DescribeEndpoint shows it."""
    live = fleet.variants.get(spec["VariantName"]) if fleet is not None else None
    images = [c["Image"] for c in containers(spec["Model"]) if "Image" in c]
    summary = {
        "VariantName": spec["VariantName"],
        "DeployedImages": [
            {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": spec["Model"]["CreationTime"]}
            for image in images
        ],
        "CurrentWeight": live.weight if live else spec["Weight"],
        "DesiredWeight": spec["Weight"],
        "CurrentInstanceCount": live.healthy_count if live else 0,
        "DesiredInstanceCount": spec["InstanceCount"],
    }
    summary.update({k: spec["Variant"][k] for k in ("ManagedInstanceScaling", "RoutingConfig") if k in spec["Variant"]})
    if "ServerlessConfig" in spec["Variant"]:
        summary["CurrentServerlessConfig"] = spec["Variant"]["ServerlessConfig"]
    return summary
