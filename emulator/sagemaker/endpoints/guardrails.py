"""Deployment guardrails: how the traffic of an endpoint is shifted to a new fleet, and what rolls that back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from emulator.platform.awsapi import Payload
from emulator.platform.errors import refuse
from emulator.platform.host import Host
from emulator.sagemaker.endpoints.fleet import Fleet

_SIZES = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}
#: How often the alarms are looked at, in AWS's seconds.
_ALARM_SECONDS = 1.0


@dataclass(frozen=True)
class Plan:
    """What a DeploymentConfig means for a fleet of a certain size; without a policy it shifts all at once."""

    steps: tuple[tuple[float, int], ...]  # the share of the traffic, and for how long then the alarms are watched
    alarms: tuple[str, ...]
    timeout: float  # in AWS's seconds, as all times here

    @classmethod
    def of(cls, config: Payload, counts: Mapping[str, int]) -> Plan:
        policy = config.get("BlueGreenUpdatePolicy", {})
        routing = policy.get("TrafficRoutingConfiguration", {"Type": "ALL_AT_ONCE"})
        shares: list[float] = []
        if size := routing.get(_SIZES.get(routing["Type"], "")):
            whole = [100] if size["Type"] == "CAPACITY_PERCENT" else counts.values()
            last = 2 if routing["Type"] == "CANARY" else max(-(-each // size["Value"]) for each in whole)
            turned_on = [sum(_instances(size, count, i) for count in counts.values()) for i in range(1, last)]
            shares = [number / sum(counts.values()) for number in turned_on]
        steps = [(share, routing.get("WaitIntervalInSeconds", 0)) for share in shares]
        steps.append((1.0, policy.get("TerminationWaitInSeconds", 0)))
        return cls(tuple(steps), alarm_names(config), policy.get("MaximumExecutionTimeoutInSeconds", float("inf")))


def _instances(size: Payload, count: int, times: int = 1) -> int:
    """How many of so many instances some steps of a CapacitySize mean: AWS turns traffic on by whole instances."""
    value: int = times * size["Value"]
    return min(count, value if size["Type"] == "INSTANCE_COUNT" else max(1, count * value // 100))


def alarm_names(config: Payload) -> tuple[str, ...]:
    return tuple(alarm["AlarmName"] for alarm in config.get("AutoRollbackConfiguration", {}).get("Alarms", []))


def check_alarms(host: Host, region: str, config: Payload) -> None:
    missing = [name for name in alarm_names(config) if host.monitoring.alarm_state(region, name) is None]
    refuse(missing, f"AutoRollbackConfiguration names alarms that do not exist: {', '.join(missing)}.")


def check(config: Payload, counts: Mapping[str, int], old: Mapping[str, int] | None = None) -> None:
    """Refuse a DeploymentConfig that SageMaker would not follow with these fleets."""
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
    waiting = sum(wait for _, wait in plan.steps)
    refuse(
        waiting >= plan.timeout,
        f"MaximumExecutionTimeoutInSeconds ({plan.timeout:g}) must be larger than the total waiting time of "
        f"WaitIntervalInSeconds and TerminationWaitInSeconds ({waiting} s).",
    )


class Shift:
    """The traffic between the fleet that serves and the one that is to replace it.

    `share` is what the new one gets, from 0 to 1. "SageMaker deactivates the same size portion of the blue fleet", so
    that each instance that takes requests has the load that it would have without the shift.
    """

    def __init__(self, host: Host, old: Fleet, new: Fleet, plan: Plan, began: float, stopping: threading.Event) -> None:
        self.old, self.new = old, new
        self.share = 0.0
        self._host = host
        self._plan = plan
        self._stopping = stopping
        self._deadline = began + host.clock.seconds(plan.timeout)  # a restart of the server gives no more time

    def problem(self) -> str | None:
        """Why the deployment has to be rolled back now; AWS publishes no wording of its own."""
        states = {name: self._host.monitoring.alarm_state(self.new.region, name) for name in self._plan.alarms}
        if ringing := [name for name, state in states.items() if state == "ALARM"]:
            return f"The deployment was rolled back: these alarms are in the ALARM state: {', '.join(ringing)}."
        if time.time() > self._deadline:
            return (
                "The deployment was rolled back: it was not complete within MaximumExecutionTimeoutInSeconds "
                f"({self._plan.timeout:g} s)."
            )
        return None

    def run(self, first: int, note: Callable[[int], None]) -> str | None:
        """Shift the traffic from step `first` on; the reason to roll back, None at the end or when the server ends."""
        for number, (share, wait) in list(enumerate(self._plan.steps))[first:]:
            if problem := self.problem():
                return problem
            note(number)
            self.give(share)
            end = time.monotonic() + self._host.clock.seconds(wait)
            while (left := end - time.monotonic()) > 0:
                if self._stopping.wait(min(left, self._host.clock.seconds(_ALARM_SECONDS))):
                    return None
                if problem := self.problem():
                    return problem
        return self.problem()

    def give(self, share: float) -> None:
        """Give the new fleet a share of the traffic, and the rest to the old one, at once."""
        (less, small), (more, large) = sorted([(share, self.new), (1 - share, self.old)], key=lambda part: part[0])
        large.activate(more)  # first: at any time, the fleet that is chosen or the other one takes requests
        self.share = share
        small.activate(less)
