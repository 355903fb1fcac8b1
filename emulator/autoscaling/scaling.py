"""Scaling that acts: alarms, bounds and schedules change capacities, and activities tell of it in AWS's words."""

from __future__ import annotations

import functools
import logging
import math
import queue
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emulator.autoscaling.policy import ScalingState, step_capacity, tracked_capacity
from emulator.autoscaling.records import SERVICE, TARGET_MEMBERS, Tables, key, target_key
from emulator.autoscaling.resources import Capacity, resource_parts
from emulator.ministack.schedules import next_date
from emulator.platform.awsapi import Payload, ServiceError
from emulator.platform.host import Host
from emulator.platform.store import Record, Store

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
#: How long, in seconds of AWS, until a capacity outside its bounds is tried again. AWS does not say how long it takes.
_RETRY_SECONDS = 60
#: "Define cooldown periods" in AWS's guide, in seconds of AWS.
_COOLDOWNS = {"sagemaker": 300, "lambda": 0}
_UNFINISHED = ("Pending", "InProgress")
#: As long as AWS tells of activities (DescribeScalingActivities: six weeks).
_KEPT_SECONDS = 42 * 24 * 3600
#: What a step policy makes of the newest values of its metric.
_AGGREGATIONS: dict[str, Callable[[Any], float]] = {"Average": statistics.fmean, "Minimum": min, "Maximum": max}


class Scaling:
    """Changes capacities, one after the other on a thread of its own; all that it knows is in the store.

    `capacities` are those that it can change, by dimension.
    """

    def __init__(self, host: Host, store: Store, capacities: Mapping[str, Capacity]) -> None:
        self._clock, self._monitoring, self._now = host.clock, host.monitoring, time.time
        self._store, self._capacities = store, capacities
        self._tables = Tables(store)
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._unfinished: dict[str, Record] = {}  # activities, by their ids
        self._retries: dict[str, float] = {}  # when targets outside their bounds are tried again
        self._lows: dict[str, float] = {}  # by a policy's ARN, its metric when its low alarm was last in ALARM
        self._thread = threading.Thread(target=self._run, name=SERVICE, daemon=True)
        self._monitoring.on_alarm("arn:aws:autoscaling:", lambda *event: self.do(lambda: self._alarm(*event)))

    def start(self) -> None:
        """Go on with what an earlier life of the server began."""
        for activity in self._tables.activities.list():
            if activity["StatusCode"] in _UNFINISHED:
                self._unfinished[activity["ActivityId"]] = activity
        for action in self._tables.actions.list():
            if self._now() < action["Due"] < math.inf and not action["Schedule"].startswith("rate"):
                self.schedule(action)  # AWS's clock began anew
        for target in self._tables.targets.list():
            self.do(functools.partial(self.keep_within_bounds, target_key(target)))
        self._thread.start()

    def stop(self) -> None:
        self._work.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def do(self, work: Callable[[], None]) -> None:
        self._work.put(work)

    def step(self, timeout: float | None = 0.0) -> bool:
        """Do what there is to do, once there is something or the time is over; False: it has been stopped."""
        try:
            work = self._work.get(timeout=timeout)
        except queue.Empty:
            work = self._run_due
        if work is None:
            return False
        for each in (self._follow, work):
            try:
                each()
            except Exception:
                logger.exception("scaling")
        return True

    def _run(self) -> None:
        while self.step(_POLL_SECONDS):
            pass

    def _alarm(self, action: str, region: str, alarm: Payload, state: str, values: Sequence[float]) -> None:
        arn = action.partition(":createdBy/")[0]
        policy = next((p for p in self._tables.policies.list(key(region, "")) if p["PolicyARN"] == arn), None)
        target = self._tables.targets.get(target_key(policy)) if policy else None
        current = self.size(target) if target else None
        if not policy or not target or current is None or not values:
            return
        if (wanted := self._wanted(policy, region, alarm, values)) is None:
            return
        out, suspended = wanted(current) > current, target["SuspendedState"]
        if suspended["DynamicScalingOutSuspended" if out else "DynamicScalingInSuspended"]:
            return
        capacity = _state(target).next_capacity(current, wanted, self._now())
        cause = f"monitor alarm {alarm['AlarmName']} in state {state} triggered policy {policy['PolicyName']}"
        if capacity != current:
            self._set(target, current, capacity, cause, _cooldown(policy, out))

    def _wanted(
        self, policy: Record, region: str, alarm: Payload, values: Sequence[float]
    ) -> Callable[[int], int] | None:
        """Give what a policy makes of a capacity; None: nothing, or it has to wait for others."""
        if policy["PolicyType"] == "StepScaling":
            steps = policy["StepScalingPolicyConfiguration"]
            breach = _AGGREGATIONS[steps.get("MetricAggregationType", "Average")](values) - alarm["Threshold"]
            return lambda current: step_capacity(current, steps, breach)
        value = values[-1]
        if alarm["AlarmName"] == policy["Alarms"][0]["AlarmName"]:
            target = _target_value(policy)
            return (lambda current: tracked_capacity(current, value, target)) if value > target else None
        # In only if all target tracking policies of the target agree; the largest capacity counts.
        self._lows[policy["PolicyARN"]] = value
        others = [p for p in self._tables.policies.list(key(target_key(policy), "")) if len(p["Alarms"]) > 1]
        low = [self._monitoring.alarm_state(region, p["Alarms"][1]["AlarmName"]) == "ALARM" for p in others]
        pairs = [(self._lows.get(p["PolicyARN"], math.inf), _target_value(p)) for p in others]
        if not all(low) or any(found >= target for found, target in pairs):
            return None
        return lambda current: max(tracked_capacity(current, found, target) for found, target in pairs)

    def keep_within_bounds(self, name: str) -> None:
        target = self._tables.targets.get(name)
        if target is None or (current := self.size(target)) is None:
            return
        capacity = min(max(current, target["MinCapacity"]), target["MaxCapacity"])
        if capacity != current:
            which = "minimum" if capacity > current else "maximum"
            self._set(target, current, capacity, f"{which} capacity was set to {capacity}")

    def schedule(self, action: Record) -> None:
        date = next_date(action, self._clock.date(self._now()))
        action["Due"] = math.inf if date is None else self._clock.when(date)
        self._tables.actions.put(key(target_key(action), action["ScheduledActionName"]), action)

    def _run_due(self) -> None:
        now = self._now()
        for name in [name for name, at in self._retries.items() if at <= now]:
            del self._retries[name]
            self.keep_within_bounds(name)
        for action in sorted(self._tables.actions.list(), key=lambda action: action["Due"]):
            if action["Due"] <= now:
                self._run_action(action)

    def _run_action(self, action: Record) -> None:
        name, bounds = target_key(action), action["ScalableTargetAction"]
        with self._store.transaction():
            target = self._tables.targets.get(name)
            if target is None or action not in self._tables.actions.list(name):
                return  # deleted or changed meanwhile
            self.schedule(action)
            if target["SuspendedState"]["ScheduledScalingSuspended"]:
                return
            target |= bounds
            if wrong := target["MinCapacity"] > target["MaxCapacity"]:
                status, said = "Failed", "Failed to"
            else:
                status, said = "Successful", "Successfully"
                self._tables.targets.put(name, target)
            words = " and ".join(f"{bound[:3].lower()} capacity to {value}" for bound, value in bounds.items())
            cause = f"scheduled action name {action['ScheduledActionName']} was triggered"
            self._note(target, f"Setting {words}", cause, status, StatusMessage=f"{said} set {words}")
        if not wrong:
            self.keep_within_bounds(name)

    def _set(self, target: Record, current: int, capacity: int, cause: str, cooldown: float | None = None) -> None:
        """Change a capacity; with a cooldown, in seconds of AWS, where a policy does."""
        means, service = self._capacities[target["ScalableDimension"]], target["ServiceNamespace"]
        what = f"{means.noun} to {capacity}"
        activity = self._note(target, f"Setting {what}.", cause, "Pending", From=current, To=capacity)
        try:
            means.put(target["Region"], _parts(target), capacity)
        except ServiceError as error:
            facts = f"Service: {means.service}; Status Code: {error.status}; Error Code: {error.code}"
            reason = f"{error.message} ({facts}; Request ID: {uuid.uuid4()}; Proxy: null)"
            self._finish(activity, "Failed", f"Failed to set {what}. Reason: {reason}")
            if cooldown is None:  # no alarm will try again
                self._retries[target_key(target)] = self._now() + self._clock.seconds(_RETRY_SECONDS)
            return
        message = f"Successfully set {what}. Waiting for change to be fulfilled by {service}."
        self._save({**activity, "StatusCode": "InProgress", "StatusMessage": message, "Cooldown": cooldown})
        if cooldown is not None:
            self._change_state(activity, lambda state: state.started(current, capacity, self._now()))

    def _follow(self) -> None:
        for activity in list(self._unfinished.values()):
            means, service = self._capacities[activity["ScalableDimension"]], activity["ServiceNamespace"]
            wanted, settled = means.read(activity["Region"], _parts(activity)) or (None, True)
            if not settled:
                continue
            if wanted == activity["To"]:
                status, said = "Successful", f"Change successfully fulfilled by {service}."
            elif wanted in (None, activity["From"]):
                status, said = "Unfulfilled", f"Change could not be fulfilled by {service}."
            else:
                status, said = "Overridden", f"Found it was later changed to {wanted}."
            self._finish(activity, status, f"Successfully set {means.noun} to {activity['To']}. {said}")

    def _finish(self, activity: Record, status: str, message: str) -> None:
        self._save({**activity, "StatusCode": status, "StatusMessage": message, "EndTime": self._now()})
        if (cooldown := activity.get("Cooldown")) is not None:
            length = self._clock.seconds(cooldown) if status == "Successful" else 0.0
            self._change_state(activity, lambda state: state.ended(self._now(), length))

    def _note(self, target: Record, description: str, cause: str, status: str, **more: Any) -> Record:
        activity = {
            **{member: target[member] for member in ("Region", *TARGET_MEMBERS)},
            **{"ActivityId": str(uuid.uuid4()), "Description": description, "Cause": cause},
            **{"StartTime": self._now(), "StatusCode": status, **more},
        }
        self._save(activity)
        for old in self._tables.activities.list(target_key(target)):
            if old["StartTime"] < self._now() - _KEPT_SECONDS:
                self._tables.activities.delete(key(target_key(target), old["ActivityId"]))
        return activity

    def _save(self, activity: Record) -> None:
        identity = activity["ActivityId"]
        name = key(target_key(activity), identity)
        self._store.insist(lambda: self._tables.activities.put(name, activity))
        self._unfinished.pop(identity, None)
        if activity["StatusCode"] in _UNFINISHED:
            self._unfinished[identity] = activity

    def _change_state(self, activity: Record, change: Callable[[ScalingState], None]) -> None:
        name = target_key(activity)
        with self._store.transaction():
            if target := self._tables.targets.get(name):
                change(state := _state(target))
                kept = {member: getattr(state, member) for member in ("base", "out", "until")}
                self._tables.targets.put(name, {**target, "Scaling": kept})

    def size(self, target: Payload) -> int | None:
        """Give the capacity that a target's resource is to have; None: there is no such resource."""
        means = self._capacities.get(target["ScalableDimension"])
        found = means.read(target["Region"], _parts(target)) if means else None
        return found[0] if found else None


def _state(target: Record) -> ScalingState:
    return ScalingState(target["MinCapacity"], target["MaxCapacity"], **target.get("Scaling", {}))


def _parts(record: Record) -> dict[str, str]:
    return resource_parts(record["ServiceNamespace"], record["ScalableDimension"], record["ResourceId"])


def _target_value(policy: Record) -> float:
    return float(policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"])


def _cooldown(policy: Record, out: bool) -> float:
    default = _COOLDOWNS[policy["ServiceNamespace"]]
    if policy["PolicyType"] == "StepScaling":
        return float(policy["StepScalingPolicyConfiguration"].get("Cooldown", default))
    configuration = policy["TargetTrackingScalingPolicyConfiguration"]
    return float(configuration.get("ScaleOutCooldown" if out else "ScaleInCooldown", default))
