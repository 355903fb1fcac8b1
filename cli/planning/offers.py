"""What could serve the traffic, each simulated: instance types, serverless endpoints, and the stock SageMaker stack."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from cli.planning.queueing import erlang_b
from cli.planning.simulator import Course, Fleet, simulate
from cli.planning.traffic import Series
from cli.prices import UNIT, serverless_usd_per_second, usd_per_hour
from infra import instance_types
from infra.settings import Settings
from infra.tables.serving import EndpointScalingSettings
from model.serving.settings import REQUESTS_PER_WORKER

_P95_SHARE, _MAX_REFUSED_SHARE = 0.05, 0.01
_MOST_INSTANCES = 100  # that the settings take
# "Lambda scaling behavior": 1,000 environments every 10 seconds for each function, refilled all the time; and
# "Understanding function scaling": 10 requests per second for each unit of the concurrency quota.
_BURST, _BURST_PER_SECOND, _REQUESTS_PER_CONCURRENCY = 1000, 100, 10
# AWS does not say when it takes idle environments away; here one in 300 goes in a second.
_IDLE_SECONDS = 300
# "Configuring Lambda function memory": a vCPU for 1,769 MB. SageMaker does not publish its own figure.
_MB_PER_VCPU = 1769
_SERVERLESS_MEMORY_MB, _SERVERLESS_CONCURRENCY, _SERVERLESS_PAYLOAD = (1024, 2048, 3072), 200, 4 * 2**20
# Measured on 2 vCPUs, eight callers: PyTorch toolkit and TorchServe with their defaults (docs/serving.md).
_STOCK_TYPE, STOCK_RATE = "ml.m5.large", 2.3
_SIZES = ("large", "xlarge", *(f"{count}xlarge" for count in (2, 4, 8, 9, 12, 16, 18, 24)))


@dataclass(frozen=True)
class Offer:
    """One way to serve the traffic, with what happens and what it costs in the simulated time."""

    name: str
    requests: float
    late: float  # answered, but later than the goal
    refused: float
    usd: float  # for endpoint, function and data
    needed: int  # instances, or requests at a time, that the peak asks for
    most: int  # that there can be
    instances: Series | None  # in service, by the second
    quotas: tuple[str, ...]  # that the account must have
    settings: str  # as TOML for the stage's settings file; empty where these have no such thing

    @property
    def holds(self) -> bool:
        """Whether 95% of all requests come in time, and hardly one is refused."""
        refused = self.refused / self.requests
        return self.late / self.requests + refused <= _P95_SHARE and refused <= _MAX_REFUSED_SHARE

    @property
    def usd_per_million(self) -> float:
        """The cost of a million images that were answered."""
        return self.usd / max(self.requests - self.refused, 1) * 1e6


@dataclass(frozen=True)
class Question:
    """What is asked for: traffic, the latency goal, and what an image and a new instance take."""

    settings: Settings
    scaling: EndpointScalingSettings
    traffic: Series
    goal_seconds: float
    image_bytes: float
    start_seconds: float

    def offers(self) -> Iterator[Offer]:
        """Simulate one way after the other."""
        measured = self.settings.serving.instance_type
        family, vcpus = instance_types.family(measured), _vcpus(measured)
        for size in _SIZES:
            name = f"ml.{family}.{size}"
            accelerated = family.startswith(("g", "p", "inf", "trn"))  # there vCPUs say nothing
            if name in instance_types.hosting() and usd_per_hour(name) and (name == measured or not accelerated):
                yield self._on_instances(name, _scaled(self.scaling, _vcpus(name) / vcpus))
        for memory in _SERVERLESS_MEMORY_MB if self.image_bytes <= _SERVERLESS_PAYLOAD else ():
            yield self._serverless(memory, vcpus / self.scaling.max_rps_per_instance)
        stock = _scaled(self.scaling, STOCK_RATE / self.scaling.max_rps_per_instance)
        yield replace(self._on_instances(_STOCK_TYPE, stock), name="stock PyTorch stack", settings="")

    def _on_instances(self, name: str, scaling: EndpointScalingSettings) -> Offer:
        """Simulate instances with the smallest minimum that holds the goal, tried in steps of a half."""
        bearable = scaling.max_rps_per_instance * scaling.safety_factor
        needed = math.ceil(self.traffic.max() / bearable)
        most = min(needed, _MOST_INSTANCES)
        least = min(math.ceil(self.traffic.min() / bearable) or 1, most)
        while True:
            offer = self._fleet(name, replace(scaling, min_instances=least, max_instances=most), needed)
            if offer.holds or least == most:
                return offer
            least = min(math.ceil(least * 1.5), most)

    def _fleet(self, name: str, scaling: EndpointScalingSettings, needed: int) -> Offer:
        workers = _vcpus(name)
        by_load = scaling.metric == "invocations"
        metric = "InvocationsPerInstance" if by_load else "ConcurrentRequestsPerModelHighResolution"
        policy = {
            "TargetValue": scaling.target_value,
            "PredefinedMetricSpecification": {"PredefinedMetricType": f"SageMakerVariant{metric}"},
            "ScaleOutCooldown": scaling.scale_out_cooldown_seconds,
            "ScaleInCooldown": scaling.scale_in_cooldown_seconds,
        }
        fleet = Fleet(
            rate=scaling.max_rps_per_instance,
            workers=workers,
            queue=REQUESTS_PER_WORKER * workers,
            initial=scaling.min_instances,
            minimum=scaling.min_instances,
            maximum=scaling.max_instances,
            policy=policy,
            start_seconds=self.start_seconds,
            metric_delay=60 if by_load else 0,
        )
        course = simulate(self.traffic, fleet, self.goal_seconds)
        late, refused, usd, quotas = self._through_function(course)
        usd += course.billed.sum() / 3600 * (usd_per_hour(name) or 0)
        # An update runs the new instances beside the old ones.
        quotas = (f"{name} for endpoint usage: {2 * course.serving.max():.0f}, for updates at full load", *quotas)
        serving = {"instance_type": name, "initial_instances": scaling.min_instances}
        changed = {each.name: getattr(scaling, each.name) for each in fields(scaling)}
        changed = {key: value for key, value in changed.items() if value not in (None, ())}
        settings = "\n".join([*_toml("serving", serving), "", *_toml("serving.scaling", changed)])
        size = needed, scaling.max_instances
        return Offer(name, self.traffic.sum(), late, refused, usd, *size, course.serving, quotas, settings)

    def _serverless(self, memory_mb: int, vcpu_seconds: float) -> Offer:
        """Simulate a serverless endpoint: a container for each request, cold starts late, no queue."""
        service = vcpu_seconds / min(memory_mb / _MB_PER_VCPU, 1)  # a lone image gains little from a second vCPU
        load = self.traffic * service
        present = load + 2 * np.sqrt(load)  # with room for the chance that more come at a time
        needed = math.ceil((load + 4 * np.sqrt(load)).max()) + 1  # costs nothing while it is not used
        most = min(needed, _SERVERLESS_CONCURRENCY)
        refused = self.traffic * erlang_b(most, load)
        answered = self.traffic - refused
        started, _ = _environments(np.minimum(present, most), math.inf)
        late = np.where(service > self.goal_seconds, answered, np.minimum(started, answered))
        nothing = np.zeros_like(load)
        course = Course(nothing, nothing, late, refused, answered * service)
        late_requests, lost, usd, quotas = self._through_function(course)
        usd += answered.sum() * service * serverless_usd_per_second(memory_mb)
        limits = _toml("serving.serverless", {"memory_mb": memory_mb, "max_concurrency": most})
        settings = "\n".join([*_toml("serving", {"kind": "serverless"}), "", *limits])
        quotas = (f"total concurrency of serverless endpoints: {most}", *quotas)
        name = f"serverless {memory_mb // 1024} GB"
        return Offer(name, self.traffic.sum(), late_requests, lost, usd, needed, most, None, quotas, settings)

    def _through_function(self, course: Course) -> tuple[float, float, float, tuple[str, ...]]:
        """Put Lambda in front: return late and refused requests, costs of function and data, and Lambda's quota."""
        function, busy = self.settings.function, course.concurrency
        _, missing = _environments(busy, _BURST)
        served = 1 - missing / np.maximum(busy, 1)
        late = float((course.late * served).sum())
        refused = float((self.traffic - (self.traffic - course.refused) * served).sum())
        requests = self.traffic.sum()
        usd = requests * UNIT["lambda_million_calls"] / 1e6
        usd += busy.sum() * function.memory_mb / 1024 * UNIT["lambda_arm64_gb_second"]
        usd += requests * self.image_bytes / 1e9 * UNIT["sagemaker_data_gb"]
        quota = max(busy.max(), self.traffic.max() / _REQUESTS_PER_CONCURRENCY)
        return late, refused, usd, (f"Lambda's Concurrent executions: {math.ceil(quota):,}",)


def _environments(needed: Series, burst: float) -> tuple[Series, Series]:
    """Return how many environments start in each second, and how many are missing because of the burst limit."""
    room, present = burst, float(needed[0])
    started, missing = np.zeros_like(needed), np.zeros_like(needed)
    for second, need in enumerate(needed.tolist()):
        room = min(burst, room + _BURST_PER_SECOND)
        lacking = max(need - present, 0.0)
        started[second] = min(lacking, room)
        missing[second] = lacking - started[second]
        room -= started[second]
        present = max(present + started[second] - present / _IDLE_SECONDS, min(need, present + started[second]))
    return started, missing


def _toml(table: str, values: Mapping[str, object]) -> list[str]:
    return [f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]


def _vcpus(instance_type: str) -> int:
    size = instance_type.rpartition(".")[2]
    return 2 if size == "large" else 4 * int(size.removesuffix("xlarge") or 1)


def _scaled(scaling: EndpointScalingSettings, factor: float) -> EndpointScalingSettings:
    concurrent = scaling.concurrent_requests_per_instance
    return replace(
        scaling,
        max_rps_per_instance=scaling.max_rps_per_instance * factor,
        concurrent_requests_per_instance=concurrent and concurrent * factor,
        schedules=(),
    )
