"""What could serve the traffic, each simulated: instance types, serverless endpoints, and the stock SageMaker stack."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from cli.planning.simulator import Course, Fleet, erlang_b, simulate, tracking
from cli.planning.traffic import Series
from infra import instance_types
from infra.prices import UNIT, endpoint_usd_per_hour, serverless_usd_per_second, usd_per_million_images
from infra.settings import Settings
from infra.tables.serving import EndpointScalingSettings
from model.serving.settings import REQUESTS_PER_WORKER

_P95_SHARE, _MAX_REFUSED_SHARE = 0.05, 0.01
_MOST_INSTANCES = 100  # that the settings take
# "Lambda scaling behavior": 1,000 environments every 10 seconds for each function, refilled all the time; and
# "Understanding function scaling": 10 requests per second for each unit of the concurrency quota.
_BURST, _BURST_PER_SECOND, _REQUESTS_PER_CONCURRENCY = 1000, 100, 10
# AWS does not say when it takes idle environments away.
_IDLE_SECONDS = 300
# "Configuring Lambda function memory": a vCPU for 1,769 MB. SageMaker does not publish its own figure.
_MB_PER_VCPU = 1769
_SERVERLESS_MEMORY_MB, _SERVERLESS_CONCURRENCY, _SERVERLESS_PAYLOAD = (1024, 2048, 3072), 200, 4 * 2**20
# Measured on 2 vCPUs, eight callers: PyTorch toolkit and TorchServe with their defaults (docs/costs.md).
_STOCK_TYPE, STOCK_RATE = "ml.m5.large", 2.3
_SIZES = ("large", "xlarge", *(f"{count}xlarge" for count in (2, 4, 8, 9, 12, 16, 18, 24)))


@dataclass(frozen=True)
class Offer:
    """One way to serve the traffic, with what happens and what it costs in the simulated time."""

    name: str
    measured: bool  # whether its rate is; else it is scaled from the one that is
    traffic: Series
    late: float  # requests answered, but later than the goal
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
        late, refused = self.late / self.traffic.sum(), self.refused / self.traffic.sum()
        return bool(late + refused <= _P95_SHARE and refused <= _MAX_REFUSED_SHARE)

    @property
    def usd_per_million(self) -> float:
        """The cost of a million images that were answered."""
        seconds = len(self.traffic)
        answered = max(float(self.traffic.sum()) - self.refused, 1)
        return usd_per_million_images(self.usd * 3600 / seconds, answered / seconds)


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
        known = self.settings.serving.instance_type
        family, vcpus = instance_types.family(known), _vcpus(known)
        accelerated = family.startswith(("g", "p", "inf", "trn"))  # there vCPUs say nothing
        others = [f"ml.{family}.{size}" for size in _SIZES if not accelerated]
        for name in [known] if known not in others else others:
            if name in instance_types.hosting() and endpoint_usd_per_hour(name) is not None:
                yield self._on_instances(name, _scaled(self.scaling, _vcpus(name) / vcpus), measured=name == known)
        for memory in _SERVERLESS_MEMORY_MB if self.image_bytes <= _SERVERLESS_PAYLOAD else ():
            yield self._serverless(memory, vcpus / self.scaling.max_rps_per_instance)
        stock = _scaled(self.scaling, STOCK_RATE / self.scaling.max_rps_per_instance)
        yield replace(self._on_instances(_STOCK_TYPE, stock, measured=True), name="stock PyTorch stack", settings="")

    def _on_instances(self, name: str, scaling: EndpointScalingSettings, *, measured: bool) -> Offer:
        """Simulate instances with the smallest minimum that holds the goal, tried in steps of a half."""
        bearable = scaling.max_rps_per_instance * scaling.safety_factor
        rollout = self.settings.serving.rollout
        fewest = 2 if rollout and rollout.strategy != "all_at_once" else 1  # a part of the instances goes first
        needed = max(math.ceil(self.traffic.max() / bearable), fewest)
        most = min(needed, _MOST_INSTANCES)
        least = min(max(math.ceil(self.traffic.min() / bearable), fewest), most)
        while True:
            bounded = replace(scaling, min_instances=least, max_instances=most)
            offer = self._fleet(name, bounded, needed, measured=measured)
            if offer.holds or least == most:
                return offer
            least = min(math.ceil(least * 1.5), most)

    def _fleet(self, name: str, scaling: EndpointScalingSettings, needed: int, *, measured: bool) -> Offer:
        workers, price = _vcpus(name), endpoint_usd_per_hour(name)
        assert price is not None  # as `offers` has found
        by_load = scaling.metric == "invocations"
        metric = "InvocationsPerInstance" if by_load else "ConcurrentRequestsPerModelHighResolution"
        cooldowns = scaling.scale_out_cooldown_seconds, scaling.scale_in_cooldown_seconds
        fleet = Fleet(
            rate=scaling.max_rps_per_instance,
            workers=workers,
            queue=REQUESTS_PER_WORKER * workers,
            minimum=scaling.min_instances,
            maximum=scaling.max_instances,
            policy=tracking(metric, scaling.target_value, *cooldowns),
            start_seconds=self.start_seconds,
            metric_delay=60 if by_load else 0,
        )
        course = simulate(self.traffic, fleet, self.goal_seconds)
        late, refused, usd, quota = self._through_function(course)
        usd += float(course.billed.sum()) / 3600 * price
        # An update runs the new instances beside the old ones.
        quotas = f"{name} for endpoint usage: {2 * course.serving.max():.0f}, for updates at full load", quota
        serving = {"instance_type": name, "initial_instances": scaling.min_instances}
        changed = {each.name: getattr(scaling, each.name) for each in fields(scaling)}
        settings = _toml({"serving": serving, "serving.scaling": changed})
        size = needed, scaling.max_instances
        return Offer(name, measured, self.traffic, late, refused, usd, *size, course.serving, quotas, settings)

    def _serverless(self, memory_mb: int, vcpu_seconds: float) -> Offer:
        """Simulate a serverless endpoint: a container for each request, cold starts late, no queue."""
        service = vcpu_seconds / min(memory_mb / _MB_PER_VCPU, 1)  # a lone image gains little from a second vCPU
        load = self.traffic * service
        present = load + 2 * np.sqrt(load)  # with room for the chance that more come at a time
        needed = math.ceil((load + 4 * np.sqrt(load)).max()) + 1  # costs nothing while it is not used
        most = min(needed, _SERVERLESS_CONCURRENCY)
        refused = self.traffic * erlang_b(most, load)
        answered = self.traffic - refused
        started = _started(np.minimum(present, most))
        late = np.where(service > self.goal_seconds, answered, np.minimum(started, answered))
        course = Course(load, load, late, refused, answered * service)
        late_requests, lost, usd, quota = self._through_function(course)
        usd += float(answered.sum()) * service * serverless_usd_per_second(memory_mb)
        limits = {"memory_mb": memory_mb, "max_concurrency": most}
        settings = _toml({"serving": {"kind": "serverless"}, "serving.serverless": limits})
        quotas, size = (f"total concurrency of serverless endpoints: {most}", quota), (needed, most)
        name = f"serverless {memory_mb // 1024} GB"
        return Offer(name, False, self.traffic, late_requests, lost, usd, *size, None, quotas, settings)

    def _through_function(self, course: Course) -> tuple[float, float, float, str]:
        """Put Lambda in front: return late and refused requests, costs of function and data, and Lambda's quota."""
        busy, requests = course.concurrency, float(self.traffic.sum())
        # Environments that Lambda has yet to start, as in a bucket from which so many may be taken each second.
        flow = np.cumsum(_started(busy) - _BURST_PER_SECOND)
        missing = np.maximum(flow - np.minimum(np.minimum.accumulate(flow), 0) - _BURST, 0)
        served = 1 - np.minimum(missing / np.maximum(busy, 1), 1)
        late = float((course.late * served).sum())
        refused = requests - float(((self.traffic - course.refused) * served).sum())
        usd = requests * (UNIT["lambda_million_calls"] / 1e6 + self.image_bytes / 1e9 * UNIT["sagemaker_data_gb"])
        usd += float(busy.sum()) * self.settings.function.memory_mb / 1024 * UNIT["lambda_arm64_gb_second"]
        quota = math.ceil(max(busy.max(), self.traffic.max() / _REQUESTS_PER_CONCURRENCY))
        return late, refused, usd, f"Lambda's Concurrent executions: {quota:,}"


def _started(needed: Series) -> Series:
    """Return how many environments start in each second, if those of the last minutes are still there."""
    before = np.concatenate((np.full(_IDLE_SECONDS, needed[0]), needed[:-1]))
    kept = np.lib.stride_tricks.sliding_window_view(before, _IDLE_SECONDS).max(axis=1)
    started: Series = np.maximum(needed - kept, 0)
    return started


def _toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    lines = (
        [f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items() if value not in (None, ()))]
        for table, values in tables.items()
    )
    return "\n\n".join(map("\n".join, lines))


def _vcpus(instance_type: str) -> int:
    _, family, size = instance_type.split(".")
    if size in ("medium", "large"):
        return 1 if size == "medium" and family != "t2" else 2
    return 4 * int(size.removesuffix("xlarge") or 1)


def _scaled(scaling: EndpointScalingSettings, factor: float) -> EndpointScalingSettings:
    concurrent = scaling.concurrent_requests_per_instance
    return replace(
        scaling,
        max_rps_per_instance=scaling.max_rps_per_instance * factor,
        concurrent_requests_per_instance=concurrent and concurrent * factor,
        schedules=(),
    )
