"""Application Auto Scaling without anything that takes time: a test moves the clock, the alarms and the capacity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emulator_fixtures import CALLER, make_host
from fake_monitoring import FakeMonitoring

from emulator.autoscaling.resources import FUNCTION, INSTANCES
from emulator.autoscaling.service import ApplicationAutoScaling
from emulator.platform.awsapi import Payload
from emulator.platform.store import Store

TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/Dogs/variant/AllTraffic",
    "ScalableDimension": INSTANCES,
}
METRIC = {"PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}}


class FakeCapacity:
    """A capacity that is reached when `settled` says so, and not changed where there is a `refusal`."""

    noun, service = "desired instance count", "AmazonSageMaker"

    def __init__(self) -> None:
        self.wanted, self.settled = 1, True
        self.refusal: Exception | None = None

    def read(self, region: str, parts: dict[str, str]) -> tuple[int, bool] | None:
        return (self.wanted, self.settled) if parts.get("VariantName") != "Other" else None

    def put(self, region: str, parts: dict[str, str], count: int) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.wanted, self.settled = count, False


class LocalScaling:
    """The service with one target, 1 to 4 instances of a variant, whose capacity is a fake one."""

    def __init__(self, state_dir: Path, clock: float = 1.0) -> None:
        self.state_dir, self.clock = state_dir, clock
        self.monitoring, self.capacity = FakeMonitoring(), FakeCapacity()
        self.store = Store(state_dir)
        self.now = 1_800_000_000.0  # a Friday, 08:00 UTC
        self.up()
        self.call("RegisterScalableTarget", **TARGET, MinCapacity=1, MaxCapacity=4)

    def up(self) -> None:
        """Start it, as after a restart of the local AWS; the thread of the earlier one has never begun."""
        host = make_host(self.state_dir, monitoring=self.monitoring, clock=self.clock)
        self.service = ApplicationAutoScaling(host, {INSTANCES: self.capacity, FUNCTION: self.capacity})
        self.service.scaling._now = lambda: self.now
        host.clock._start = self.now

    def call(self, operation: str, **request: Any) -> Payload:
        return self.service.call(operation, request, CALLER)

    def track(self, name: str = "rps", target: float = 100.0, **members: Any) -> list[str]:
        """Put a target tracking policy; the names of its alarms."""
        configuration = {"TargetValue": target, **METRIC, **members}
        policy = {**TARGET, "PolicyName": name, "PolicyType": "TargetTrackingScaling"}
        made = self.call("PutScalingPolicy", **policy, TargetTrackingScalingPolicyConfiguration=configuration)
        return [alarm["AlarmName"] for alarm in made["Alarms"]]

    def settle(self, *, reached: bool = True) -> int:
        """Let it do what there is to do, and have the capacity reached; the capacity."""
        while self.service.scaling.step() and not self.service.scaling._work.empty():
            pass
        self.capacity.settled |= reached
        self.service.scaling.step()
        return self.capacity.wanted

    def alarm(self, name: str, *values: float, after: float = 0.0, reached: bool = True) -> int:
        """Have an alarm in ALARM, later; the capacity then."""
        self.now += after + 0.001  # activities have an order
        self.monitoring.fire("eu-west-1", name, *values)
        return self.settle(reached=reached)

    def activities(self, **members: Any) -> list[Payload]:
        return self.call("DescribeScalingActivities", ServiceNamespace="sagemaker", **members)["ScalingActivities"]
