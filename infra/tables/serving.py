"""The table ``[serving]`` of the settings: the model, its endpoint, how that scales and how it gets a new model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Literal

from infra import instance_types
from infra.container_images import ECR_IMAGE_URI
from infra.tables.function import Capacity, LogRetentionDays
from infra.tables.schedules import Scaling, Schedule
from infra.validation import Table, between, matching, one_of

CooldownSeconds = Annotated[int, between(0, 3600)]
WaitSeconds = Annotated[int, between(0, 3600)]
#: The longest `MaximumExecutionTimeoutInSeconds` of a deployment.
LONGEST_ROLLOUT_SECONDS = 28_800

# What only instances have, and why; AWS's list is in the SageMaker guide, "Deploy models with Amazon SageMaker
# Serverless Inference", "Feature exclusions". Network isolation and a key for volumes, also on it, are no settings.
_NEEDS_INSTANCES = {
    "instance_type": "it runs on no instance of yours, and never on a GPU; set serving.serverless.memory_mb",
    "initial_instances": "it has no instances; set serving.serverless.max_concurrency",
    "startup_timeout_seconds": "AWS alone decides how long a container may take to start",
    "scaling": "AWS starts containers by itself, up to serving.serverless.max_concurrency",
    "rollout": "SageMaker shifts traffic step by step, and rolls back by alarms, between instances only",
    "capture": "SageMaker captures requests on instances only",
}


@dataclass(frozen=True, kw_only=True)
class ServerlessSettings(Table):
    """An endpoint that bills calls and not hours; the first call after a pause waits until a container has started."""

    #: vCPUs come with the memory.
    memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = 2048
    #: Calls at a time, each in a container of its own; one more is refused with 429.
    max_concurrency: Annotated[int, between(1, 200)] = 5
    #: Containers kept warm, billed whether used or not; absent: none.
    provisioned_concurrency: Annotated[int, between(1, 200)] | None = None

    def conflicts(self) -> Iterator[str]:
        if (self.provisioned_concurrency or 0) > self.max_concurrency:
            yield (
                f"provisioned_concurrency: {self.provisioned_concurrency} is more than max_concurrency "
                f"({self.max_concurrency})"
            )


@dataclass(frozen=True, kw_only=True)
class InstanceSchedule(Schedule):
    OF: ClassVar[str] = "instances"
    min_instances: Capacity
    max_instances: Capacity


@dataclass(frozen=True, kw_only=True)
class EndpointScalingSettings(Scaling):
    """Target tracking on the load of one instance, and limits that change by the clock.

    AWS's recipe: measure how many requests per second one instance can bear, keep a margin, and track that. 0.5 is
    its starting value for the margin.
    """

    OF: ClassVar[str] = "instances"
    min_instances: Capacity
    max_instances: Capacity
    #: "invocations": per instance and minute, seen after some minutes. "concurrency": requests at a time, measured
    #: every 10 seconds, so that scaling starts up to six times as soon.
    metric: Literal["invocations", "concurrency"] = "invocations"
    max_rps_per_instance: Annotated[float, between(0.02, 100_000)]
    #: With metric = "concurrency": as many at a time as one instance can bear.
    concurrent_requests_per_instance: Annotated[float, between(0.1, 10_000)] | None = None
    safety_factor: Annotated[float, between(0.05, 1)] = 0.5
    scale_out_cooldown_seconds: CooldownSeconds = 60
    scale_in_cooldown_seconds: CooldownSeconds = 300
    schedules: tuple[InstanceSchedule, ...] = ()

    @property
    def target_value(self) -> float:
        """What the policy tracks: invocations per instance and minute, or requests at a time per instance."""
        if self.concurrent_requests_per_instance is not None:
            return self.concurrent_requests_per_instance * self.safety_factor
        return self.max_rps_per_instance * self.safety_factor * 60

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if (self.metric == "concurrency") != (self.concurrent_requests_per_instance is not None):
            yield 'concurrent_requests_per_instance: goes with metric = "concurrency", set both or neither'


@dataclass(frozen=True, kw_only=True)
class RolloutSettings(Table):
    """How an endpoint moves to a new model: on new instances beside the old, and back to the old if an alarm goes off.

    Both run, and are billed, until the end.
    """

    strategy: Literal["all_at_once", "canary", "linear"] = "all_at_once"
    #: Share of the instances that move first (canary) or at a time (linear, of which AWS takes 10 and more).
    percent: Annotated[int, between(10, 50)] | None = None
    #: How long the alarms watch each step. An alarm needs 2 bad minutes, and the metrics are a minute late.
    wait_seconds: WaitSeconds = 300
    #: How much longer they watch, and the old instances stay, once all traffic has moved.
    bake_seconds: WaitSeconds = 300

    def conflicts(self) -> Iterator[str]:
        if (self.strategy == "all_at_once") != (self.percent is None):
            yield 'percent: goes with strategy = "canary" or "linear", set both or neither'


@dataclass(frozen=True, kw_only=True)
class CaptureSettings(Table):
    """Requests and answers, kept in the data bucket: images of your callers, so say so to them."""

    sampling_percent: Annotated[int, between(1, 100)] = 10
    #: Until they are deleted; also after capturing has been switched off.
    days: Annotated[int, between(1, 3650)] = 30


@dataclass(frozen=True, kw_only=True)
class ServingSettings(Table):
    """The model and the real-time endpoint that serves it."""

    #: "instance": billed by the hour. "serverless": billed by the call, slow at first after a pause. Each is an
    #: endpoint of its own: a stage that changes its kind gets the new one before the old one is deleted.
    kind: Literal["instance", "serverless"] = "instance"
    instance_type: Annotated[str, one_of(instance_types.hosting, "ml.m5.large")] = "ml.m5.large"
    #: Of a new endpoint; one that is there keeps the number it has.
    initial_instances: Capacity = 1
    serverless: ServerlessSettings = ServerlessSettings()
    #: Path of the model artifact, relative to the project's root; absent: build/<stage>/model.tar.gz, so that no stage
    #: deploys what was packaged for another.
    artifact: str | None = None
    #: Keep it constant: auto scaling and deployment guardrails lose track of a variant that is renamed.
    variant_name: Annotated[str, matching(r"[A-Za-z0-9](-?[A-Za-z0-9]){0,62}", "a variant name")] = "main"
    #: How long a new instance may take until it answers /ping; SageMaker takes 60 to 3600.
    startup_timeout_seconds: Annotated[int, between(60, 3600)] = 600
    #: What the artifact runs on: "own" (model/serving/image/, built during the deployment), or the URI of an image
    #: in a private ECR registry of the stage's own region.
    image: Annotated[str, matching(rf"own|{ECR_IMAGE_URI.pattern}", '"own" or the URI of an image in ECR')] = "own"
    #: What an instance's vCPUs are for: "throughput", a worker each, or "latency", all of them for one image.
    mode: Literal["throughput", "latency"] = "throughput"
    #: Of what the endpoint and transform jobs log, as for `TrainingSettings.log_retention_days`.
    log_retention_days: LogRetentionDays = 30
    #: Absent: the instance count stays as it is.
    scaling: EndpointScalingSettings | None = None
    #: Absent: all at once, and back only if the new instances do not start.
    rollout: RolloutSettings | None = None
    #: Absent: nothing of a request is kept.
    capture: CaptureSettings | None = None

    @property
    def instances(self) -> tuple[int, int]:
        """How many instances the endpoint has, at rest and at full load."""
        return self.scaling.widest if self.scaling else (self.initial_instances,) * 2

    @property
    def rollout_timeout_seconds(self) -> int:
        """How long a rollout may take: all its waiting, two starts of instances, and 10 minutes for the rest."""
        rollout = self.rollout
        assert rollout is not None
        steps = {"all_at_once": 1, "canary": 2, "linear": math.ceil(100 / (rollout.percent or 100))}[rollout.strategy]
        return steps * rollout.wait_seconds + rollout.bake_seconds + 2 * self.startup_timeout_seconds + 600

    def conflicts(self) -> Iterator[str]:
        if self.kind == "serverless":
            defaults = {setting.name: setting.default for setting in fields(self)}
            for name, reason in _NEEDS_INSTANCES.items():
                if getattr(self, name) != defaults[name]:
                    yield f"{name}: not with a serverless endpoint: {reason}"
            return
        if self.serverless != ServerlessSettings():
            yield 'serverless: only goes with kind = "serverless"'
        if self.scaling:
            yield from self.scaling.outside("initial_instances", self.initial_instances)
        if self.rollout:
            yield from self._conflicts_of_rollout(self.rollout)

    def _conflicts_of_rollout(self, rollout: RolloutSettings) -> Iterator[str]:
        if rollout.strategy != "all_at_once" and self.instances[0] < 2:
            yield (
                f'rollout.strategy: "{rollout.strategy}" moves at most half of the instances at a time, so there must '
                "be 2 at least (min_instances of serving.scaling and its schedules; without it initial_instances)"
            )
        if instance_types.family(self.instance_type) == "inf1":
            yield f"rollout: SageMaker cannot on {self.instance_type} (Inferentia 1)"
        if self.rollout_timeout_seconds > LONGEST_ROLLOUT_SECONDS:
            yield (
                f"rollout: its waits and two starts may take {self.rollout_timeout_seconds} seconds, more than AWS "
                f"allows ({LONGEST_ROLLOUT_SECONDS})"
            )
