"""Serverless variants: execution environments that start when an invocation needs one, and stop when none does.

Limits and exclusions: https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html; metrics: the page
serverless-endpoints-monitoring beside it, whose list is exhaustive. An environment is a real server for one invocation
at a time. It has the whole machine: the vCPUs that AWS gives in proportion to the memory are not imitated.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from emulator.platform.awsapi import Payload, ServiceError
from emulator.platform.errors import refuse
from emulator.platform.host import Host
from emulator.sagemaker.endpoints.fleet import FleetError, Variant, stop_all
from emulator.sagemaker.serving.http_client import HttpAnswer, ServerFailed, Sink
from emulator.sagemaker.serving.instance import Instance

#: "The maximum request and response payload size for serverless invocations is 4 MB."
MAX_BODY_BYTES = 4 * 2**20
#: "The model must download and the server must respond successfully to /ping within 3 minutes."
STARTUP_SECONDS = 180
#: AWS publishes no time; on Lambda, which is underneath, it is minutes.
_IDLE_SECONDS = 300.0
#: An invocation waits so long for its environment: a little less than AWS's clients wait for a response.
_SETUP_SECONDS = 55.0
_POLL_SECONDS = 0.02
_MEMORY_STEP_MB = 1024
#: What a serverless variant may have; the rest is about instances.
_MEMBERS = {"VariantName", "ModelName", "InitialVariantWeight", "ServerlessConfig"}
#: What an endpoint configuration with one may not have.
_EXCLUDED = {"KmsKeyId", "DataCaptureConfig", "AsyncInferenceConfig"}


def check_config(request: Payload, models: Iterable[Payload]) -> None:
    """Refuse a request of CreateEndpointConfig with a serverless variant that AWS would refuse, too."""
    variants = request["ProductionVariants"]
    refuse(len(variants) > 1, "Multiple production variants are not supported for serverless endpoint.")
    wrong = [*sorted(request.keys() & _EXCLUDED), *sorted(variants[0].keys() - _MEMBERS)]
    refuse(wrong, f"Not supported for serverless endpoint: {', '.join(wrong)}.")
    for model in models:
        refuse(model.get("EnableNetworkIsolation"), "Network isolation is not supported for serverless endpoint.")
    config = variants[0]["ServerlessConfig"]
    refuse(
        config["MemorySizeInMB"] % _MEMORY_STEP_MB,
        f"MemorySizeInMB must be 1024, 2048, 3072, 4096, 5120 or 6144, not {config['MemorySizeInMB']}.",
    )
    provisioned, most = config.get("ProvisionedConcurrency", 0), config["MaxConcurrency"]
    refuse(provisioned > most, f"ProvisionedConcurrency ({provisioned}) must not exceed MaxConcurrency ({most}).")


def make_variant(host: Host, region: str, spec: Payload, *rest: Any) -> Variant:
    kind = ServerlessVariant if "ServerlessConfig" in spec["Variant"] else Variant
    return kind(host, region, spec, *rest)


class ServerlessVariant(Variant):
    """A variant whose instances are execution environments.

    Its number of instances (`resize`) is the provisioned concurrency: so many are always up. `max_concurrency` is how
    many invocations may be under way at a time; the next one is throttled.
    """

    startup_seconds = STARTUP_SECONDS

    def __init__(self, host: Host, region: str, spec: Payload, directory: Path, title: str, log_group: str) -> None:
        super().__init__(host, region, spec, directory, title, log_group)
        self.max_concurrency: int = spec["Variant"]["ServerlessConfig"]["MaxConcurrency"]
        self._dimensions = {"EndpointName": log_group.rpartition("/")[2], "VariantName": self.name}
        self._provisioned = 0
        self._proven = False  # whether the model has been seen to come up
        self._used: dict[Instance, float] = {}  # when an environment was last seen at work
        self._choosing = threading.RLock()  # for all that changes `instances`, and never for long
        self._ended = threading.Event()

    def resize(self, count: int, start_seconds: float = 0.0) -> None:
        """Have `count` environments that are always up. The first time, one comes up at least, to see that it can."""
        with self._choosing:
            if self._stopped or self._new_instance is None:
                raise FleetError(f"The {self._title} is not in service.")
            self._provisioned = count
            wanted = count if self._proven else max(count, 1)
            added = [self._add() for _ in range(wanted - len(self.instances))]
        failed = [instance for instance in added if not instance.settled()]
        with self._choosing:  # of a server that has started again, an invocation may have taken one already
            self._remove(added if failed else [i for i in added if not count and not i.outstanding])
        if failed:
            raise FleetError(self._failure_reason(failed[0]))
        if not self._proven:
            self._proven = True
            threading.Thread(target=self._stop_idle, name=f"idle {self._title}", daemon=True).start()

    def in_service(self) -> list[Instance]:
        """None: AWS publishes no metrics of a serverless variant's instances."""
        return []

    async def ask(self, headers: Mapping[str, str], body: bytes, sink: Sink | None = None) -> HttpAnswer | None:
        if len(body) > MAX_BODY_BYTES:
            # As for other endpoints: without an error type.
            raise ServiceError("413", f"HTTP content length exceeded {MAX_BODY_BYTES} bytes.", 413)
        return await super().ask(headers, body, sink)

    async def _post(self, instance: Instance, headers: Mapping[str, str], body: bytes, sink: Sink | None) -> HttpAnswer:
        """Wait until an environment is up or taken out, and ask it."""
        began, cold = time.monotonic(), instance.pool is None
        while instance.pool is None and instance in self.instances:
            if instance.failure is not None:
                self._remove([instance])
                raise ServerFailed(self._failure_reason(instance))
            if time.monotonic() - began > _SETUP_SECONDS:
                message = f"The resources of variant {self.name} are still being provisioned. Wait and try again."
                raise ServiceError("ModelNotReadyException", message, 429)
            await asyncio.sleep(_POLL_SECONDS)
        waited = time.monotonic() - began
        if cold:
            self._record("ModelSetupTime", 1e6 * waited, "Microseconds")
        answer = await super()._post(instance, headers, body, sink)
        if len(answer.body) > MAX_BODY_BYTES:
            raise ServerFailed(f"The response has more than {MAX_BODY_BYTES} bytes.")
        answer.setup_seconds = waited
        return answer

    def stop(self, drain: bool) -> None:
        with self._choosing:
            self._stopped = True
        self._ended.set()
        super().stop(drain)

    def _take(self, exclude: Collection[Instance]) -> Instance | None:
        """Reserve an environment for one invocation, rather one that is up than one that starts."""
        with self._choosing:
            if self._stopped or self._new_instance is None:
                return None
            busy = sum(instance.outstanding for instance in self.instances)
            if busy >= self.max_concurrency:
                raise ServiceError("ThrottlingException", "Rate exceeded")
            free = [i for i in self.instances if not i.outstanding and i not in exclude and i.failure is None]
            chosen = max(free, key=lambda instance: instance.pool is not None, default=None) or self._add()
            chosen.outstanding += 1
            self._used[chosen] = time.monotonic()
        self._publish(busy + 1)
        return chosen

    def _publish(self, concurrent: int) -> None:
        self._record("ServerlessConcurrentExecutionsUtilization", concurrent / self.max_concurrency)
        if provisioned := self._provisioned:
            within = concurrent <= provisioned
            by = "ServerlessProvisionedConcurrency"
            self._record(f"{by}Executions", min(concurrent, provisioned), "Count")
            self._record(f"{by}Utilization", min(concurrent, provisioned) / provisioned)
            self._record(f"{by}{'Invocations' if within else 'SpilloverInvocations'}", 1, "Count")

    def _record(self, name: str, value: float, unit: str = "None") -> None:
        self._host.monitoring.record(self._region, "AWS/SageMaker", name, self._dimensions, value, unit)

    def _add(self) -> Instance:
        assert self._new_instance is not None  # a fleet that takes invocations has been prepared
        instance = self._new_instance()
        self._used[instance] = time.monotonic()
        self.instances = [*self.instances, instance]
        instance.start()
        return instance

    def _remove(self, instances: Collection[Instance]) -> None:
        """Take environments out, and stop them in the background."""
        with self._choosing:
            self.instances = [instance for instance in self.instances if instance not in instances]
            for instance in instances:
                self._used.pop(instance, None)
        threading.Thread(target=stop_all, args=(instances, True), name=f"stop {self._title}", daemon=True).start()

    def _stop_idle(self) -> None:
        """Stop what has had nothing to do for a while, beyond what is provisioned."""
        idle = self._host.clock.seconds(_IDLE_SECONDS)
        while not self._ended.wait(idle / 10):
            now = time.monotonic()
            with self._choosing:
                self._used.update((instance, now) for instance in self.instances if instance.outstanding)
                surplus = sorted(self.instances, key=lambda instance: -self._used[instance])[self._provisioned :]
                if over := [instance for instance in surplus if self._used[instance] < now - idle]:
                    self._remove(over)
