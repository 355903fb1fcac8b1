"""The instances behind an endpoint: one fleet per deployed endpoint configuration."""

from __future__ import annotations

import logging
import math
import random
import shutil
import threading
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from emulator.platform.awsapi import Payload, ServiceError
from emulator.platform.host import Host
from emulator.sagemaker.artifacts import ArtifactError
from emulator.sagemaker.endpoints.capture import CAPTURE_SECONDS, Capture
from emulator.sagemaker.logs import LogStream
from emulator.sagemaker.roles import Role
from emulator.sagemaker.runs import MAX_REASON_CHARACTERS
from emulator.sagemaker.serving.container import ServingContainer
from emulator.sagemaker.serving.http_client import HttpAnswer, ServerUnreachable, Sink
from emulator.sagemaker.serving.instance import MAX_BODY_BYTES, Instance

logger = logging.getLogger(__name__)

LOG_GROUP = "/aws/sagemaker/Endpoints/{endpoint}"
#: What SageMaker waits for the first healthy ping unless the variant says otherwise.
DEFAULT_STARTUP_SECONDS = 480
#: An invocation may take this long, so a fleet that is replaced lives on for as long.
INVOCATION_SECONDS = 60.0
#: "Payload sizes (up to 1GB)" of asynchronous endpoints.
_MAX_ASYNC_BYTES = 2**30


class FleetError(Exception):
    """A fleet that did not come up; the message is the endpoint's FailureReason."""


class Invocation(NamedTuple):
    """What an invocation leaves behind for the metrics."""

    status: int | None  # of the model's answer; 0: it failed without one; None: it was not asked, or not to its end
    model_microseconds: float = 0.0
    overhead_microseconds: float = 0.0


class Variant:
    """One model: its program and however many instances of it, which messages call by a title.

    `spec` is a variant of the fleet's record, with its model's record. Instances log under the model's role, in
    streams ``<name>/<instance><log suffix>``. `share` is the part of the endpoint's traffic that this fleet gets, with
    the same part of its instances. `invocations` waits for the metrics.
    """

    #: How long a server may take until its first healthy ping, unless the variant says otherwise.
    startup_seconds = DEFAULT_STARTUP_SECONDS

    def __init__(
        self,
        host: Host,
        region: str,
        spec: Payload,
        directory: Path,
        title: str,
        log_group: str,
        log_suffix: str = "",
    ) -> None:
        self.name: str = spec["VariantName"]
        self.weight: float = spec["Weight"]
        self.instances: list[Instance] = []
        self.share = 1.0
        self.max_body_bytes = MAX_BODY_BYTES
        self.role_arn: str = spec["Model"].get("ExecutionRoleArn", "")
        self.invocations: deque[Invocation] = deque()
        self.capture: Capture | None = None
        self._host = host
        self._region = region
        self._variant: Payload = spec["Variant"]
        self._model: Payload = spec["Model"]
        self._directory = directory
        self._title = title
        self._log_group = log_group
        self._log_suffix = log_suffix
        self._new_instance: Callable[[], Instance] | None = None  # there is none before `prepare`
        self._resizing = threading.Lock()
        self._stopped = False

    def prepare(self) -> None:
        """Fetch the artifact, unless an earlier life of the server did, and find its program, or raise FleetError."""
        if self._stopped:
            raise FleetError(f"The {self._title} has been stopped.")
        try:
            role = Role(self._host, self._model["ExecutionRoleArn"], self._region)
            container = ServingContainer(role, self._model, self._directory)
        except (ServiceError, ArtifactError, OSError) as error:
            raise FleetError(f"The model of {self._title} cannot be loaded: {error}") from None
        startup = self._variant.get("ContainerStartupHealthCheckTimeoutInSeconds", self.startup_seconds)

        def new_instance() -> Instance:
            stream = f"{self.name}/i-{uuid.uuid4().hex[:17]}{self._log_suffix}"
            log = LogStream(role, self._log_group, stream)
            own = self._host.temporary_folder()
            return Instance(self._host.processes, container, own, log, startup, self.max_body_bytes)

        self._new_instance = new_instance

    def resize(self, count: int, start_seconds: float = 0.0) -> None:
        """Have `count` healthy instances; FleetError where one does not come up: those that were there still are.

        A new instance takes so many seconds until its server starts.
        """
        with self._resizing:
            if self._stopped or self._new_instance is None:
                raise FleetError(f"The {self._title} is not in service.")
            added = [self._new_instance() for _ in range(count - len(self.instances))]
            for instance in added:
                instance.start(start_seconds)
            self.instances = [*self.instances, *added]
        failed = [instance for instance in added if not instance.settled()]
        with self._resizing:
            surplus = added if failed else self.instances[count:]
            self.instances = [instance for instance in self.instances if instance not in surplus]
        stop_all(surplus, drain=True)  # of those that were added beside one that failed, some may be at work
        if failed:
            raise FleetError(self._failure_reason(failed[0]))

    def update(self, spec: Payload, start_seconds: float) -> None:
        """Have the capacity and the weight that a record says."""
        self.resize(spec["InstanceCount"], start_seconds)
        self.weight = spec["Weight"]

    def _failure_reason(self, instance: Instance) -> str:
        reason = (
            f"The primary container for {self._title} did not pass the ping health check: "
            f"the model server {instance.failure or 'was stopped'}."
        )
        if tail := instance.log.tail():
            reason += " The end of its log:\n"
            reason += tail[-(MAX_REASON_CHARACTERS - len(reason)) :]
        return reason[:MAX_REASON_CHARACTERS]

    def in_service(self) -> list[Instance]:
        """The healthy instances."""
        return [instance for instance in self.instances if instance.pool is not None]

    def pick(self, exclude: Collection[Instance]) -> Instance | None:
        """The instance for the next invocation, None when there is none that takes some and is not excluded."""
        serving = self.in_service()
        if self.share < 1:
            serving = serving[: math.ceil(round(len(self.instances) * self.share, 6))]
        candidates = [instance for instance in serving if instance not in exclude]
        return random.choice(candidates) if candidates else None  # noqa: S311 - spreads load

    async def ask(self, headers: Mapping[str, str], body: bytes, sink: Sink | None = None) -> HttpAnswer | None:
        """Ask an instance, and another one when the request did not reach it; None when none is in service."""
        unreachable: set[Instance] = set()
        while (instance := self._take(unreachable)) is not None:
            try:
                return await self._post(instance, headers, body, sink)
            except ServerUnreachable:
                unreachable.add(instance)
            finally:
                instance.outstanding -= 1
        return None

    def _take(self, exclude: Collection[Instance]) -> Instance | None:
        """Choose the instance for an invocation, which counts as outstanding from now on."""
        if (instance := self.pick(exclude)) is not None:
            instance.outstanding += 1  # before `_post` sees that it is up: `Instance.stop` looks in the other order
        return instance

    async def _post(self, instance: Instance, headers: Mapping[str, str], body: bytes, sink: Sink | None) -> HttpAnswer:
        if (pool := instance.pool) is None:
            raise ServerUnreachable("it is not up")
        answer = await pool.post("/invocations", headers, body, sink)
        instance.answered += 1
        return answer

    def stop(self, drain: bool) -> None:
        """Stop every instance."""
        with self._resizing:  # for as long as it takes: who stops it a second time waits for the first
            self._stopped = True
            instances, self.instances = self.instances, []
            stop_all(instances, drain)


def stop_all(instances: Iterable[Instance], drain: bool) -> None:
    """Stop instances, all at a time."""
    instances = list(instances)
    if instances:
        with ThreadPoolExecutor(len(instances), thread_name_prefix="stop") as pool:
            list(pool.map(lambda i: i.stop(drain_seconds=INVOCATION_SECONDS if drain else 0.0), instances))


class Fleet:
    """All variants of a deployed endpoint configuration; `spec` is the fleet's part of the endpoint's record."""

    def __init__(
        self,
        host: Host,
        endpoint: str,
        region: str,
        spec: Payload,
        directory: Path,
        make_variant: Callable[..., Variant] = Variant,
    ) -> None:
        self.directory = directory / spec["Id"]
        self.endpoint, self.region, self.config = endpoint, region, spec["EndpointConfigName"]
        self._host = host
        self._spec = spec
        capture = spec.get("DataCapture", {})
        self._captured: Payload = capture if capture.get("EnableCapture", True) else {}
        self.asynchronous: Payload = spec.get("Async", {})
        self.variants: dict[str, Variant] = {}
        for variant in spec["Variants"]:
            name, log_group = variant["VariantName"], LOG_GROUP.format(endpoint=endpoint)
            title = f"production variant {name}"
            self.variants[name] = make_variant(host, region, variant, self.directory / name, title, log_group)
            if self.asynchronous:
                self.variants[name].max_body_bytes = _MAX_ASYNC_BYTES

    def start(self, start_seconds: float = 0.0) -> None:
        """Bring up every instance and wait until all are healthy; FleetError where one is not: `stop` the fleet.

        An instance takes so many seconds until its server starts.
        """
        counts: dict[Variant, int] = {}
        for spec in self._spec["Variants"]:
            variant = self.variants[spec["VariantName"]]
            counts[variant] = spec["InstanceCount"]
            variant.prepare()
            if self._captured and variant.capture is None:
                variant.capture = self._capture(variant, spec["Model"]["ExecutionRoleArn"])
        with ThreadPoolExecutor(len(counts), thread_name_prefix="start") as pool:
            list(pool.map(lambda variant: variant.resize(counts[variant], start_seconds), counts))

    def _capture(self, variant: Variant, role_arn: str) -> Capture:
        def report(line: str) -> None:
            for instance in variant.instances[:1]:
                instance.log.write(line)

        role = Role(self._host, role_arn, self.region)
        seconds = self._host.clock.seconds(CAPTURE_SECONDS)
        return Capture(role, self._captured, f"{self.endpoint}/{variant.name}", report, seconds)

    def activate(self, share: float) -> None:
        """Let a part of the instances serve the same part of the endpoint's traffic."""
        for variant in self.variants.values():
            variant.share = share

    def choose_variant(self) -> Variant:
        """A variant by the weights; any when all weights are zero."""
        variants = list(self.variants.values())
        weights = [variant.weight for variant in variants]
        return random.choices(variants, weights if any(weights) else None)[0]  # noqa: S311 - spreads load

    def stop(self, drain: bool = False) -> None:
        """Stop every instance; with `drain`, invocations under way may finish."""
        for variant in self.variants.values():
            variant.stop(drain)

    def remove(self) -> None:
        """Deliver what was captured of a fleet that has been stopped, and remove what was unpacked for it."""
        for variant in self.variants.values():
            if variant.capture is not None:
                variant.capture.close()
        shutil.rmtree(self.directory, ignore_errors=True)
