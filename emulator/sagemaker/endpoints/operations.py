"""Endpoints: created, updated blue/green, scaled and deleted, with real fleets behind them."""

from __future__ import annotations

import contextlib
import logging
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from emulator.autoscaling.records import deregister
from emulator.platform.awsapi import Caller, Payload, operation
from emulator.platform.clock import pauses
from emulator.platform.errors import refuse
from emulator.platform.host import Host
from emulator.platform.store import Record, Store
from emulator.sagemaker.endpoints import guardrails, specs
from emulator.sagemaker.endpoints.backlog import Backlog
from emulator.sagemaker.endpoints.fleet import Fleet, FleetError
from emulator.sagemaker.endpoints.metrics import PUBLISH_SECONDS, Publisher
from emulator.sagemaker.endpoints.serverless import make_variant
from emulator.sagemaker.resources import ENDPOINT, ENDPOINT_CONFIG, MODEL, Resources

logger = logging.getLogger(__name__)


class Endpoints:
    """Create, Describe, Update and DeleteEndpoint, UpdateEndpointWeightsAndCapacities.

    An endpoint's record holds, beside what AWS shows, the fleet that serves (``Fleet``) and the one that is to
    replace it (``NextFleet``), each complete with its models: an endpoint outlives the model and the configuration
    that it was made from, and the server. ``Deployment`` says how far the replacement has come: the next server goes on
    from there.
    """

    def __init__(self, host: Host, store: Store) -> None:
        self._host = host
        self._store = store
        self._endpoints = Resources(store, ENDPOINT)
        self._configs = Resources(store, ENDPOINT_CONFIG)
        self._models = Resources(store, MODEL)
        self._fleets: dict[tuple[str, str], Fleet] = {}
        self._pending: dict[tuple[str, str], Fleet] = {}
        self._shifts: dict[tuple[str, str], guardrails.Shift] = {}
        self._alive: set[Fleet] = set()
        self._publisher = Publisher(host)
        self.backlog = Backlog(host, store, self.fleet)
        self.interrupt = self.backlog.interrupt
        self._stopping = threading.Event()
        self._start_seconds = host.clock.seconds(host.conditions.instance_start_seconds)

    @operation("CreateEndpoint")
    def create(self, request: Payload, caller: Caller) -> Payload:
        spec = self._next_fleet(request, caller)
        guardrails.check_alarms(self._host, caller.region, request.get("DeploymentConfig", {}))
        guardrails.check(request.get("DeploymentConfig", {}), specs.counts(spec))
        members = {"EndpointStatus": "Creating", "NextFleet": spec, "Deployment": _launching()}
        # DescribeEndpoint calls it LastDeploymentConfig.
        shown = {"LastDeploymentConfig" if k == "DeploymentConfig" else k: v for k, v in request.items()}
        record = self._endpoints.create(caller, shown, **members)
        self._in_background(self._roll_out, record["EndpointArn"], self._start_seconds)
        return {"EndpointArn": record["EndpointArn"]}

    @operation("UpdateEndpoint")
    def update(self, request: Payload, caller: Caller) -> Payload:
        config = request.get("DeploymentConfig", {})
        if request.get("RetainDeploymentConfig") and not config:
            config = self._endpoints.require(caller, request["EndpointName"]).get("LastDeploymentConfig", {})
        guardrails.check_alarms(self._host, caller.region, config)

        def change(record: Record) -> None:
            _begin(record, "Updating")
            spec = record["NextFleet"] = self._next_fleet(request, caller)
            specs.check_kind(record["Fleet"], spec)
            if request.get("RetainAllVariantProperties"):
                excluded = {item["VariantPropertyType"] for item in request.get("ExcludeRetainedVariantProperties", [])}
                specs.retain_properties(record["Fleet"], spec, excluded)
            record.pop("LastDeploymentConfig", None)
            if config:
                record["LastDeploymentConfig"] = config
            guardrails.check(config, specs.counts(spec), specs.counts(record["Fleet"]))
            record["Deployment"] = _launching()

        arn = self._change(request, caller, change)
        self._in_background(self._roll_out, arn, self._start_seconds)
        return {"EndpointArn": arn}

    @operation("UpdateEndpointWeightsAndCapacities")
    def update_weights_and_capacities(self, request: Payload, caller: Caller) -> Payload:
        previous: Payload = {}

        def change(record: Record) -> None:
            _begin(record, "Updating")
            previous.update(record["Fleet"])
            record["Fleet"] = specs.with_desired(record["Fleet"], request["DesiredWeightsAndCapacities"])

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
        answer = self._endpoints.show(record)
        if "Fleet" in record:
            fleet = self._fleets.get(_key(record))
            answer["ProductionVariants"] = [specs.summary(spec, fleet) for spec in record["Fleet"]["Variants"]]
            if "DataCapture" in record["Fleet"]:
                answer["DataCaptureConfig"] = specs.capture_summary(record["Fleet"]["DataCapture"])
            if "Async" in record["Fleet"]:
                answer["AsyncInferenceConfig"] = record["Fleet"]["Async"]
        if "NextFleet" in record:
            spec, fleet = record["NextFleet"], self._pending.get(_key(record))
            answer["PendingDeploymentSummary"] = {
                "EndpointConfigName": spec["EndpointConfigName"],
                "StartTime": record["Deployment"]["StartTime"],
                "ProductionVariants": [specs.summary(variant, fleet) for variant in spec["Variants"]],
            }
        return answer

    def fleet(self, region: str, name: str, avoid: Fleet | None = None) -> Fleet | None:
        """A fleet that serves an endpoint; None when there is none of exactly this name or it never was in service.

        While the traffic is shifted there are two; a request for which one had nothing in service can `avoid` it.
        """
        shift = self._shifts.get((region, name))
        if shift is not None and (shift.old is avoid or (not avoid and random.random() < shift.share)):  # noqa: S311
            return shift.new
        fleet = self._fleets.get((region, name))
        return None if fleet is avoid else fleet

    def start(self) -> None:
        """Take up what an earlier life of the server left: bring endpoints back, finish what was under way."""
        threading.Thread(target=self._publish, name="metrics of endpoints", daemon=True).start()
        for record in self._endpoints.all():
            arn = record["EndpointArn"]
            if record["EndpointStatus"] == "Deleting":
                self._in_background(self._remove, arn)
                continue
            if "Fleet" in record:
                fleet = self._new_fleet(record, record["Fleet"])
                self._fleets[_key(record)] = fleet
                self._in_background(self._recover, arn, fleet)
            if record["EndpointStatus"] == "RollingBack":
                self._end(self._new_fleet(record, record["NextFleet"]))
                self._settle(arn, failure=record["FailureReason"])
            elif "NextFleet" in record:
                self._in_background(self._roll_out, arn)
        self.backlog.start()

    def stop(self) -> None:
        """Stop every instance; the records stay as they are, so that `start` brings the endpoints back."""
        self._stopping.set()
        self.backlog.stop()
        fleets = tuple(self._alive)
        with ThreadPoolExecutor(len(fleets) or 1, thread_name_prefix="stop") as pool:
            list(pool.map(Fleet.stop, fleets))

    def _publish(self) -> None:
        while not self._stopping.wait(self._host.clock.seconds(PUBLISH_SECONDS)):
            try:
                self._publisher.publish(tuple(self._alive))
                self.backlog.publish(tuple(self._fleets.values()))
            except Exception:
                logger.exception("the metrics of endpoints are not published")

    def _in_background(self, work: Callable[..., None], arn: str, *arguments: object) -> None:
        def run() -> None:
            try:
                work(arn, *arguments)
            except Exception:
                if not self._stopping.is_set():
                    logger.exception("%s: %s failed", arn, work.__name__)

        threading.Thread(target=run, name=f"{work.__name__} {arn}", daemon=True).start()

    def _roll_out(self, arn: str, start_seconds: float = 0.0) -> None:
        """Bring up the next fleet and shift the traffic to it; when that fails, leave or put everything as it was."""

        def note(step: int) -> None:
            change = {"Step": step}
            self._endpoints.insist(lambda: self._endpoints.change(arn, lambda r: r["Deployment"].update(change)))

        record = self._endpoints.require_arn(arn)
        key, spec = _key(record), record["NextFleet"]
        fleet = self._pending[key] = self._new_fleet(record, spec)
        replaced, shift, failure = self._fleets.get(key), None, None
        if replaced is not None:
            plan = guardrails.Plan.of(record.get("LastDeploymentConfig", {}), specs.counts(spec))
            began: float = record["Deployment"]["StartTime"]
            shift = guardrails.Shift(self._host, replaced, fleet, plan, began, self._stopping)
            failure = shift.problem()
        try:
            if failure is None:
                fleet.start(start_seconds)
                if shift is not None:
                    self._shifts[key] = shift
                    failure = shift.run(record["Deployment"]["Step"], note)
        except FleetError as error:
            failure = str(error)
        if self._stopping.is_set():
            fleet.stop()
            return
        if failure is None:
            self._fleets[key] = fleet
            fleet.activate(1.0)
        elif shift is not None:
            shift.give(0.0)
            change = {"EndpointStatus": "RollingBack", "FailureReason": failure}
            self._endpoints.insist(lambda: self._endpoints.change(arn, lambda record: record.update(change)))
        self._shifts.pop(key, None)
        self._pending.pop(key)
        if failure is not None:
            self._end(fleet)
            self._settle(arn, failure=failure)
            return
        self._settle(arn, spec)
        if replaced is not None:
            self._forget_scaling(record, replaced.variants.keys() - fleet.variants.keys())
            self._end(replaced)

    def _end(self, fleet: Fleet, drain: bool = True) -> None:
        """Stop a fleet and remove what is left of it; with `drain`, invocations under way may finish."""
        fleet.stop(drain)
        self._publisher.invocations(fleet)
        self._alive.discard(fleet)
        fleet.remove()

    def _settle(self, arn: str, deployed: Payload | None = None, failure: str | None = None) -> None:
        def change(record: Record) -> None:
            record.pop("NextFleet", None)
            record.pop("Deployment", None)
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
                fleet.variants[variant["VariantName"]].update(variant, self._start_seconds)

        try:
            resize(record["Fleet"])
        except FleetError as error:
            if not self._stopping.is_set():
                with contextlib.suppress(FleetError):  # of what went meanwhile, not all may come back
                    resize(previous)  # instances that came up before one of another variant failed go again
                self._settle(arn, previous, str(error))
            return
        self._settle(arn)

    def _recover(self, arn: str, fleet: Fleet) -> None:
        """Bring a fleet back after a restart of the server, however long it takes."""

        def change(record: Record) -> None:
            if "NextFleet" not in record:  # otherwise an update or a rollback is under way
                record["EndpointStatus"] = "InService"

        self._endpoints.insist(lambda: self._endpoints.change(arn, change))
        for pause in pauses():
            try:
                fleet.start()
                return
            except FleetError as error:
                if self._stopping.is_set() or fleet not in self._fleets.values():
                    return
                logger.warning("%s is not back yet: %s", arn, error)
            if self._stopping.wait(pause):
                return

    def _remove(self, arn: str) -> None:
        record = self._endpoints.require_arn(arn)
        fleet = self._fleets.pop(_key(record), None)
        if fleet is not None:
            self._end(fleet, drain=False)
        self.backlog.forget(*_key(record))
        self._forget_scaling(record, [v["VariantName"] for v in record.get("Fleet", {}).get("Variants", [])])
        shutil.rmtree(self._directory(record), ignore_errors=True)
        self._endpoints.insist(lambda: self._endpoints.delete(arn))

    def _forget_scaling(self, record: Record, variants: Iterable[str]) -> None:
        """Deregister the scalable targets of variants that are gone, as SageMaker does."""
        region, name = _key(record)
        resource_ids = [f"endpoint/{name}/variant/{variant}" for variant in variants]
        given = (self._store, self._host.monitoring, region, "sagemaker", resource_ids)
        self._endpoints.insist(lambda: deregister(*given))

    def _next_fleet(self, request: Payload, caller: Caller) -> Payload:
        config = self._configs.require(caller, request["EndpointConfigName"])
        models = {v["VariantName"]: self._models.require(caller, v["ModelName"]) for v in config["ProductionVariants"]}
        return specs.of_config(config, models)

    def _change(self, request: Payload, caller: Caller, change: Callable[[Record], None]) -> str:
        arn: str = self._endpoints.require(caller, request["EndpointName"])["EndpointArn"]
        self._endpoints.change(arn, change)
        return arn

    def _new_fleet(self, record: Record, spec: Payload) -> Fleet:
        region, name = _key(record)
        fleet = Fleet(self._host, name, region, spec, self._directory(record), make_variant)
        self._alive.add(fleet)
        return fleet

    def _directory(self, record: Record) -> Path:
        return self._host.folder.joinpath("endpoints", *_key(record))


def _key(record: Record) -> tuple[str, str]:
    return record["EndpointArn"].split(":")[3], record["EndpointName"]


def _launching() -> Payload:
    return {"StartTime": time.time(), "Step": 0}


def _begin(record: Record, status: str) -> None:
    arn, current = record["EndpointArn"], record["EndpointStatus"]
    failed = current == "Failed" and status == "Updating"
    refuse(failed, f'Endpoint "{arn}" has failed; it can only be deleted.')
    refuse(current not in ("InService", "Failed"), f'Cannot update in-progress endpoint "{arn}".')
    record["EndpointStatus"] = status
    record.pop("FailureReason", None)
