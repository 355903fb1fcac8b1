"""Endpoints: created, updated blue/green, scaled and deleted, with real fleets behind them."""

from __future__ import annotations

import logging
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from emulator.autoscaling import service as autoscaling
from emulator.platform.awsapi import Caller, Payload, operation
from emulator.platform.errors import refuse
from emulator.platform.host import Host
from emulator.platform.store import Record, Store
from emulator.sagemaker.endpoints.fleet import Fleet, FleetError
from emulator.sagemaker.resources import ENDPOINT, ENDPOINT_CONFIG, MODEL, Resources

logger = logging.getLogger(__name__)

#: Between attempts to bring an endpoint back after a restart of the server, doubled from the first to the longest.
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0


class Endpoints:
    """Create, Describe, Update and DeleteEndpoint, UpdateEndpointWeightsAndCapacities.

    An endpoint's record holds, beside what AWS shows, the fleet that serves (``Fleet``) and the one that is to
    replace it (``NextFleet``), each complete with its models: an endpoint outlives the model and the configuration
    that it was made from, and the server.
    """

    def __init__(self, host: Host, store: Store) -> None:
        self._host = host
        self._store = store
        self._endpoints = Resources(store, ENDPOINT)
        self._configs = Resources(store, ENDPOINT_CONFIG)
        self._models = Resources(store, MODEL)
        self._fleets: dict[tuple[str, str], Fleet] = {}
        self._pending: set[Fleet] = set()
        self._stopping = threading.Event()

    @operation("CreateEndpoint")
    def create(self, request: Payload, caller: Caller) -> Payload:
        members = {"EndpointStatus": "Creating", "NextFleet": self._next_fleet(request, caller)}
        # DescribeEndpoint calls it LastDeploymentConfig.
        shown = {"LastDeploymentConfig" if k == "DeploymentConfig" else k: v for k, v in request.items()}
        record = self._endpoints.create(caller, shown, **members)
        self._in_background(self._roll_out, record["EndpointArn"])
        return {"EndpointArn": record["EndpointArn"]}

    @operation("UpdateEndpoint")
    def update(self, request: Payload, caller: Caller) -> Payload:
        def change(record: Record) -> None:
            _begin(record, "Updating")
            spec = record["NextFleet"] = self._next_fleet(request, caller)
            if request.get("RetainAllVariantProperties"):
                excluded = {item["VariantPropertyType"] for item in request.get("ExcludeRetainedVariantProperties", [])}
                _retain_properties(record["Fleet"], spec, excluded)
            if not request.get("RetainDeploymentConfig"):
                record.pop("LastDeploymentConfig", None)
            if "DeploymentConfig" in request:
                record["LastDeploymentConfig"] = request["DeploymentConfig"]

        arn = self._change(request, caller, change)
        self._in_background(self._roll_out, arn)
        return {"EndpointArn": arn}

    @operation("UpdateEndpointWeightsAndCapacities")
    def update_weights_and_capacities(self, request: Payload, caller: Caller) -> Payload:
        previous: Payload = {}

        def change(record: Record) -> None:
            _begin(record, "Updating")
            previous.update(record["Fleet"])
            record["Fleet"] = _with_desired(record["Fleet"], request["DesiredWeightsAndCapacities"])

        arn = self._change(request, caller, change)
        self._in_background(self._resize, arn, previous)
        return {"EndpointArn": arn}

    @operation("DeleteEndpoint")
    def delete(self, request: Payload, caller: Caller) -> None:
        arn = self._change(request, caller, lambda record: _begin(record, "Deleting"))
        self._in_background(self._remove, arn)

    @operation("DescribeEndpoint")
    def describe(self, request: Payload, caller: Caller) -> Payload:
        record = self._endpoints.require(caller, request["EndpointName"])
        answer = self._endpoints.describe(request, caller)
        if "Fleet" in record:
            fleet = self._fleets.get(_key(record))
            answer["ProductionVariants"] = [_summary(spec, fleet) for spec in record["Fleet"]["Variants"]]
        if "Fleet" in record and "NextFleet" in record:
            answer["PendingDeploymentSummary"] = {
                "EndpointConfigName": record["NextFleet"]["EndpointConfigName"],
                "StartTime": record["LastModifiedTime"],
            }
        return answer

    def fleet(self, region: str, name: str) -> Fleet | None:
        """Which fleet serves an endpoint; None when there is none of exactly this name or it never was in service."""
        return self._fleets.get((region, name))

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
        fleets = [*self._fleets.values(), *self._pending]
        with ThreadPoolExecutor(len(fleets) or 1, thread_name_prefix="stop") as pool:
            list(pool.map(Fleet.stop, fleets))

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
        failure = None
        self._pending.add(fleet)
        try:
            fleet.start()
        except FleetError as error:
            failure = str(error)
        if failure is not None or self._stopping.is_set():
            fleet.stop()
            self._pending.discard(fleet)
            if not self._stopping.is_set():
                fleet.remove_files()
                self._settle(arn, failure=failure)
            return
        replaced = self._fleets.get(_key(record))
        self._fleets[_key(record)] = fleet
        self._pending.discard(fleet)
        self._settle(arn, spec)
        if replaced is not None:
            self._forget_scaling(record, replaced.variants.keys() - fleet.variants.keys())
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

        def resize(spec: Payload) -> None:
            for variant in spec["Variants"]:
                fleet.variants[variant["VariantName"]].resize(variant["InstanceCount"])
                fleet.variants[variant["VariantName"]].weight = variant["Weight"]

        try:
            resize(record["Fleet"])
        except FleetError as error:
            if not self._stopping.is_set():
                resize(previous)  # instances that came up before one of another variant failed go again
                self._settle(arn, previous, str(error))
            return
        self._settle(arn)

    def _recover(self, arn: str, fleet: Fleet) -> None:
        """Bring a fleet back after a restart of the server, however long it takes."""

        def change(record: Record) -> None:
            record["EndpointStatus"] = "Updating" if "NextFleet" in record else "InService"

        self._endpoints.insist(lambda: self._endpoints.change(arn, change))
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                fleet.start()
                return
            except FleetError as error:
                if self._stopping.is_set() or fleet not in self._fleets.values():
                    return
                logger.warning("%s is not back yet: %s", arn, error)
            if self._stopping.wait(pause):
                return
            pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause)

    def _remove(self, arn: str) -> None:
        record = self._endpoints.require_arn(arn)
        fleet = self._fleets.pop(_key(record), None)
        if fleet is not None:
            fleet.stop()
        self._forget_scaling(record, [v["VariantName"] for v in record.get("Fleet", {}).get("Variants", [])])
        shutil.rmtree(self._directory(record), ignore_errors=True)
        self._endpoints.insist(lambda: self._endpoints.delete(arn))

    def _forget_scaling(self, record: Record, variants: Iterable[str]) -> None:
        """Deregister the scalable targets of variants that are gone, as SageMaker does."""
        region, name = _key(record)
        resource_ids = [f"endpoint/{name}/variant/{variant}" for variant in variants]
        self._endpoints.insist(lambda: autoscaling.deregister(self._store, region, "sagemaker", resource_ids))

    def _next_fleet(self, request: Payload, caller: Caller) -> Payload:
        """The fleet of the configuration that a request names, as an endpoint's record holds it."""
        config = self._configs.require(caller, request["EndpointConfigName"])
        variants = [
            {
                "VariantName": variant["VariantName"],
                "Weight": variant["InitialVariantWeight"],
                "InstanceCount": variant["InitialInstanceCount"],
                "Variant": variant,
                "Model": self._models.require(caller, variant["ModelName"]),
            }
            for variant in config["ProductionVariants"]
        ]
        name = config["EndpointConfigName"]
        return {"Id": uuid.uuid4().hex[:12], "EndpointConfigName": name, "Variants": variants}

    def _change(self, request: Payload, caller: Caller, change: Callable[[Record], None]) -> str:
        """Change the record of the endpoint that a request names; its ARN."""
        arn: str = self._endpoints.require(caller, request["EndpointName"])["EndpointArn"]
        self._endpoints.change(arn, change)
        return arn

    def _new_fleet(self, record: Record, spec: Payload) -> Fleet:
        region, name = _key(record)
        return Fleet(self._host, name, region, spec, self._directory(record))

    def _directory(self, record: Record) -> Path:
        return self._host.folder.joinpath("endpoints", *_key(record))


def _key(record: Record) -> tuple[str, str]:
    return record["EndpointArn"].split(":")[3], record["EndpointName"]


def _begin(record: Record, status: str) -> None:
    """Move an endpoint at rest to the status of a transition."""
    arn, current = record["EndpointArn"], record["EndpointStatus"]
    failed = current == "Failed" and status == "Updating"
    refuse(failed, f'Endpoint "{arn}" has failed; it can only be deleted.')
    refuse(current not in ("InService", "Failed"), f'Cannot update in-progress endpoint "{arn}".')
    record["EndpointStatus"] = status
    record.pop("FailureReason", None)


def _retain_properties(current: Payload, spec: Payload, excluded: set[str]) -> None:
    """Carry instance counts and weights of variants with the same name over to a new fleet."""
    live = {variant["VariantName"]: variant for variant in current["Variants"]}
    for variant in spec["Variants"]:
        for member, property_type in (("Weight", "DesiredWeight"), ("InstanceCount", "DesiredInstanceCount")):
            if variant["VariantName"] in live and property_type not in excluded:
                variant[member] = live[variant["VariantName"]][member]


def _with_desired(spec: Payload, desired: list[Payload]) -> Payload:
    """A fleet with other weights and capacities; what cannot be is refused."""
    variants = {variant["VariantName"]: dict(variant) for variant in spec["Variants"]}
    for change in desired:
        name = change["VariantName"]
        refuse(name not in variants, f"Variant {name} not found. There are: {', '.join(variants)}.")
        serverless = "ServerlessUpdateConfig" in change
        refuse(
            serverless, f"Variant {name} has a ServerlessUpdateConfig, and the local AWS has no serverless variants."
        )
        none = change.get("DesiredInstanceCount", 1) < 1
        refuse(none, f"Variant {name} needs a DesiredInstanceCount of at least 1.")
        for member, target in (("DesiredInstanceCount", "InstanceCount"), ("DesiredWeight", "Weight")):
            variants[name][target] = change.get(member, variants[name][target])
    return {**spec, "Variants": list(variants.values())}


def _summary(spec: Payload, fleet: Fleet | None) -> Payload:
    """A variant as DescribeEndpoint shows it."""
    live = fleet.variants.get(spec["VariantName"]) if fleet is not None else None
    model, image = spec["Model"], spec["Model"]["PrimaryContainer"]["Image"]
    return {
        "VariantName": spec["VariantName"],
        "DeployedImages": [{"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": model["CreationTime"]}],
        "CurrentWeight": live.weight if live else spec["Weight"],
        "DesiredWeight": spec["Weight"],
        "CurrentInstanceCount": live.healthy_count if live else 0,
        "DesiredInstanceCount": spec["InstanceCount"],
    }
