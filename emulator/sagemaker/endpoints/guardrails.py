"""Deployment guardrails: how the traffic of an endpoint is shifted to a new fleet, and what rolls that back."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from emulator.platform.awsapi import Payload
from emulator.platform.errors import refuse
from emulator.platform.host import Host
from emulator.sagemaker.endpoints import specs
from emulator.sagemaker.endpoints.fleet import Fleet

_SIZES = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}
#: How often the alarms are looked at, in AWS's seconds.
_ALARM_SECONDS = 1.0

#: (number of the step, VariantStatus by variant) -> written down
Note = Callable[[int, Mapping[str, Payload]], None]


@dataclass(frozen=True)
class Step:
    """Some instances of the new fleet take traffic, and the alarms are watched for a while."""

    active: Mapping[str, int]  # by variant
    share: float  # of the traffic
    wait: int  # in AWS's seconds
    wait_name: str
    part: str  # AWS's word for so many instances


@dataclass(frozen=True)
class Plan:
    """What a DeploymentConfig means for a fleet of a certain size; without a policy it shifts all at once."""

    steps: tuple[Step, ...]
    alarms: tuple[str, ...]
    timeout: float  # in AWS's seconds

    @classmethod
    def of(cls, config: Payload, counts: Mapping[str, int]) -> Plan:
        """Make the plan for a fleet that has so many instances of each variant."""
        policy = config.get("BlueGreenUpdatePolicy", {})
        routing = policy.get("TrafficRoutingConfiguration", {"Type": "ALL_AT_ONCE"})
        parts: list[Mapping[str, int]] = []
        if size := routing.get(_SIZES.get(routing["Type"], "")):
            whole = [100] if size["Type"] == "CAPACITY_PERCENT" else counts.values()
            last = 2 if routing["Type"] == "CANARY" else max(-(-each // size["Value"]) for each in whole)
            parts = [{name: _instances(size, count, i) for name, count in counts.items()} for i in range(1, last)]
        total = sum(counts.values())
        wait = routing.get("WaitIntervalInSeconds", 0)
        steps = [Step(part, sum(part.values()) / total, wait, "WaitIntervalInSeconds", "canary") for part in parts]
        wait = policy.get("TerminationWaitInSeconds", 0)
        steps.append(Step(counts, 1.0, wait, "TerminationWaitInSeconds", "full"))
        timeout = policy.get("MaximumExecutionTimeoutInSeconds", float("inf"))
        return cls(tuple(steps), alarm_names(config), timeout)


def _instances(size: Payload, count: int, times: int = 1) -> int:
    """How many of so many instances some steps of a CapacitySize mean: AWS turns traffic on by whole instances."""
    value: int = times * size["Value"]
    return min(count, value if size["Type"] == "INSTANCE_COUNT" else max(1, count * value // 100))


def alarm_names(config: Payload) -> tuple[str, ...]:
    """The alarms by which a deployment is rolled back."""
    return tuple(alarm["AlarmName"] for alarm in config.get("AutoRollbackConfiguration", {}).get("Alarms", []))


def check_alarms(host: Host, region: str, config: Payload) -> None:
    """Refuse a DeploymentConfig whose alarms do not exist."""
    missing = [name for name in alarm_names(config) if host.monitoring.alarm_state(region, name) is None]
    refuse(missing, f"AutoRollbackConfiguration names alarms that do not exist: {', '.join(missing)}.")


def check(config: Payload, counts: Mapping[str, int], old: Mapping[str, int] | None = None) -> None:
    """Refuse a DeploymentConfig that SageMaker would not follow with these fleets, or the local AWS cannot."""
    refuse("RollingUpdatePolicy" in config, "The local AWS has no RollingUpdatePolicy: use a BlueGreenUpdatePolicy.")
    renamed = config and old is not None and old.keys() != counts.keys()
    refuse(renamed, f"A DeploymentConfig needs variants of the same names as before: {', '.join(old or ())}.")
    routing = config.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration", {})
    if member := _SIZES.get(routing.get("Type", "")):
        refuse(member not in routing, f"A TrafficRoutingConfiguration of type {routing['Type']} needs a {member}.")
        size, least = routing[member], 10 if routing["Type"] == "LINEAR" else 0
        for name, count in counts.items():
            shares = {100 * _instances(size, count) / count}
            shares |= {size["Value"]} if size["Type"] == "CAPACITY_PERCENT" else set()
            refuse(
                min(shares) < least or max(shares) > 50,
                f"{member} ({size['Value']} {size['Type']}) must be {least}-50% of the instances of variant {name}, "
                f"which has {count}. Traffic is turned on by whole instances: with one, use ALL_AT_ONCE.",
            )
    plan = Plan.of(config, counts)
    waiting = sum(step.wait for step in plan.steps)
    refuse(
        waiting >= plan.timeout,
        f"MaximumExecutionTimeoutInSeconds ({plan.timeout:g}) must be larger than the total waiting time of "
        f"WaitIntervalInSeconds and TerminationWaitInSeconds ({waiting} s).",
    )


class Shift:
    """The traffic between the fleet that serves and the one that is to replace it.

    `share` is what the new one gets, from 0 to 1. The instances that a step does not use take nothing, so that the
    others have the load that they would have without the shift.
    """

    def __init__(self, host: Host, old: Fleet, new: Fleet, plan: Plan, stopping: threading.Event) -> None:
        self.new = new
        self.share = 0.0
        self._host = host
        self._old = old
        self._plan = plan
        self._stopping = stopping
        self._deadline = time.monotonic() + host.clock.seconds(plan.timeout)

    def problem(self) -> str | None:
        """Why the deployment has to be rolled back now; AWS publishes no wording of its own."""
        states = {name: self._host.monitoring.alarm_state(self.new.region, name) for name in self._plan.alarms}
        if ringing := [name for name, state in states.items() if state == "ALARM"]:
            return f"The deployment was rolled back: these alarms are in the ALARM state: {', '.join(ringing)}."
        if time.monotonic() > self._deadline:
            return (
                "The deployment was rolled back: it was not complete within MaximumExecutionTimeoutInSeconds "
                f"({self._plan.timeout:g} s)."
            )
        return None

    def run(self, first: int, note: Note) -> str | None:
        """Shift the traffic from step `first` on; the reason to roll back, None at the end or when the server ends."""
        for number, step in list(enumerate(self._plan.steps))[first:]:
            if problem := self.problem():
                return problem
            capacity = f"{step.part} capacity of {{}} instance(s)."
            note(number, specs.status("ActivatingTraffic", f"Activating traffic on {capacity}", step.active))
            self._activate(step)
            baking = f"Baking for {step.wait} seconds ({step.wait_name}) with traffic enabled on {capacity}"
            note(number, specs.status("Baking", baking, step.active))
            end = time.monotonic() + self._host.clock.seconds(step.wait)
            while (left := end - time.monotonic()) > 0:
                if self._stopping.wait(min(left, self._host.clock.seconds(_ALARM_SECONDS))):
                    return None
                if problem := self.problem():
                    return problem
        return self.problem()

    def roll_back(self) -> None:
        """Give all traffic back to the old fleet, at once."""
        self.share = 0.0
        self._old.activate({}, 1.0)
        self.new.activate(dict.fromkeys(self.new.variants, 0), 0.0)

    def _activate(self, step: Step) -> None:
        self.new.activate(step.active, step.share)
        self.share = step.share
        # "SageMaker deactivates the same size portion of the blue fleet."
        left = round(1 - step.share, 6)
        # One remains for requests that chose the old fleet a moment ago.
        rest = {v.name: max(1, math.ceil(len(v.instances) * left)) for v in self._old.variants.values()}
        self._old.activate(rest, left)
