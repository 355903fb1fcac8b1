"""The metrics of endpoints, as SageMaker publishes them.

Names, units and dimensions: https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html. As there, an
invocation counts 0 or 1 as an error. Without traffic the metrics that scaling follows are 0, so that a variant goes
back to its minimum (https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-edit.html); there are no
others.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Mapping

import psutil

from emulator.platform.host import Host
from emulator.sagemaker.endpoints.fleet import Fleet, Invocation, Variant
from emulator.sagemaker.serving.instance import Instance

#: How often what was measured is published, and how often the use of the machine, in AWS's seconds.
PUBLISH_SECONDS = 1.0
_USAGE_SECONDS = 60.0
#: How often the metrics that scaling follows are published without traffic: the shortest of its periods.
_IDLE_SECONDS = 10.0
#: Of an asynchronous endpoint there are none of these: AWS's list of its metrics is exhaustive.
_NOT_ASYNCHRONOUS = {
    *("Invocations", "InvocationsPerInstance", "InvocationModelErrors", "OverheadLatency", "ConcurrentRequestsPerModel")
}


class Publisher:
    """Publishes the metrics of fleets; all work is done here, not in the invocations."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._answered: dict[Instance, int] = {}  # when the concurrency was published last
        self._cpu: dict[Instance, tuple[float, float]] = {}  # when the usage was: the time, seconds of CPU until then
        self._usage_due = self._idle_due = 0.0
        self._taking = threading.Lock()

    def publish(self, fleets: Collection[Fleet]) -> None:
        for fleet in fleets:
            self.invocations(fleet)
        now, (answered, self._answered), cpu = time.monotonic(), (self._answered, {}), self._cpu
        if idle := now >= self._idle_due:
            self._idle_due = now + self._host.clock.seconds(_IDLE_SECONDS)
        if usage := now >= self._usage_due:
            self._usage_due, self._cpu = now + self._host.clock.seconds(_USAGE_SECONDS), {}
        for fleet, variant in [(each, variant) for each in fleets for variant in each.variants.values()]:
            dimensions = _dimensions(fleet, variant)
            for instance in variant.in_service():
                self._answered[instance] = instance.answered
                if idle:
                    self._record(fleet, dimensions, "InvocationsPerInstance", 0)
                if idle or instance.outstanding or instance.answered != answered.get(instance, 0):
                    self._record(fleet, dimensions, "ConcurrentRequestsPerModel", instance.outstanding)
                if usage:
                    self._usage(fleet, dimensions, instance, cpu.get(instance))

    def invocations(self, fleet: Fleet) -> None:
        with self._taking:  # a fleet that ends is asked a last time, beside the regular ones
            for variant in fleet.variants.values():
                if taken := [variant.invocations.popleft() for _ in range(len(variant.invocations))]:
                    self._invocations(fleet, variant, taken)

    def _record(
        self, fleet: Fleet, dimensions: Mapping[str, str], name: str, value: float, unit: str = "None", count: int = 1
    ) -> None:
        if fleet.asynchronous and name in _NOT_ASYNCHRONOUS:
            return
        namespace = "/aws/sagemaker/Endpoints" if unit == "Percent" else "AWS/SageMaker"
        self._host.monitoring.record(fleet.region, namespace, name, dimensions, value, unit, count)

    def _invocations(self, fleet: Fleet, variant: Variant, taken: list[Invocation]) -> None:
        answers = [invocation for invocation in taken if invocation.status is not None]
        statuses = [invocation.status for invocation in taken if invocation.status is not None]
        errors = {
            "Invocation4XXErrors": sum(400 <= status < 500 for status in statuses),
            "Invocation5XXErrors": sum(status >= 500 for status in statuses),
            # Also what is no response: a broken connection, a timeout.
            "InvocationModelErrors": sum(not 200 <= status < 300 for status in statuses),
        }
        serving = len(variant.in_service())
        own = _dimensions(fleet, variant)
        # By the configuration, too: alarms on a new fleet alone, as in AWS's guide to deployment guardrails.
        for dimensions in (own, {**own, "EndpointConfigName": fleet.config}):
            self._record(fleet, dimensions, "Invocations", 1, count=len(taken))
            if serving and answers:
                self._record(fleet, dimensions, "InvocationsPerInstance", 1 / serving, count=len(answers))
            for name, wrong in errors.items():
                for value, count in ((1, wrong), (0, len(answers) - wrong)):
                    if count:
                        self._record(fleet, dimensions, name, value, count=count)
            for each in answers:
                self._record(fleet, dimensions, "ModelLatency", each.model_microseconds, "Microseconds")
                self._record(fleet, dimensions, "OverheadLatency", each.overhead_microseconds, "Microseconds")

    def _usage(
        self, fleet: Fleet, dimensions: Mapping[str, str], instance: Instance, before: tuple[float, float] | None
    ) -> None:
        """Publish what an instance uses of this machine: it is a process and all that this has started."""
        seconds = resident = 0.0
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(instance.pid)
            for process in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    seconds += sum(process.cpu_times()[:2])
                    resident += process.memory_info().rss
        now = time.monotonic()
        self._cpu[instance] = (now, seconds)
        if before is not None:  # 100 for each vCPU that was busy all the time
            used = max(0.0, seconds - before[1]) / (now - before[0])
            self._record(fleet, dimensions, "CPUUtilization", 100 * used, "Percent")
        share = min(1.0, resident / psutil.virtual_memory().total)  # processes may have memory in common
        self._record(fleet, dimensions, "MemoryUtilization", 100 * share, "Percent")


def _dimensions(fleet: Fleet, variant: Variant) -> dict[str, str]:
    return {"EndpointName": fleet.endpoint, "VariantName": variant.name}
