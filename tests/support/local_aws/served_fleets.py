"""Fleets whose instances are ports, without processes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from emulator.sagemaker.endpoints.fleet import Fleet, Variant
from emulator.sagemaker.serving.http_client import ConnectionPool
from emulator.sagemaker.serving.instance import MAX_BODY_BYTES


class Server:
    """An instance without a process; None for one that is not healthy."""

    pid = failure = None
    log = SimpleNamespace(tail=str, write=str)

    def __init__(self, port: int | None = None) -> None:
        self.pool: Any = None if port is None else ConnectionPool(port, MAX_BODY_BYTES)
        self.outstanding = self.answered = 0
        self.drained: float | None = None  # how long it waited for invocations when it was stopped

    def start(self, after_seconds: float = 0.0) -> None:
        pass

    def settled(self) -> bool:
        return self.pool is not None

    def stop(self, drain_seconds: float) -> None:
        self.pool, self.drained = None, drain_seconds


def variant(name: str, *ports: int | None, weight: float = 1.0) -> Variant:
    host: Any = None  # is asked for nothing
    made = Variant(host, "eu-west-1", spec(name, len(ports), weight), Path("none"), name, "group")
    made.instances = [Server(port) for port in ports]  # type: ignore[misc]
    return made


def fleet(*variants: Variant, config: str = "config") -> Fleet:
    specs = [spec(variant.name, len(variant.instances), variant.weight) for variant in variants]
    host: Any = None
    made = Fleet(host, "dogs", "eu-west-1", {"Id": config, "EndpointConfigName": config, "Variants": specs}, Path())
    made.variants = {variant.name: variant for variant in variants}
    return made


def spec(name: str, count: int, weight: float = 1.0) -> dict[str, Any]:
    """A variant of a fleet as the record of an endpoint holds it."""
    return {"VariantName": name, "Weight": weight, "InstanceCount": count, "Variant": {}, "Model": {}}
