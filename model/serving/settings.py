"""What the environment tells the serving container: SageMaker's own variables, and the service's limits."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core import artifact_digest
from ..core.decoding import MAX_PIXELS
from ..core.machine import available_vcpus

# What the vCPUs are for: many images at a time, a worker each, or one image as soon as possible.
MODES = ("throughput", "latency")
# InvokeEndpoint itself takes no more than this.
MAX_BODY_BYTES = 6 * 1024 * 1024
# A held request may own a body of 6 MiB; this many per worker keep them all below 400 MiB a worker.
REQUESTS_PER_WORKER = 64


class SettingsError(Exception):
    """The environment's settings cannot be used; the message names every fault and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings:
    """Settings of one serving container; docs/serving.md describes each environment variable and its default."""

    model_dir: Path
    artifact_digest: str | None
    host: str
    port: int
    workers: int
    threads: int  # of each worker; follows from the mode
    lone_threads: int
    timeout_seconds: int
    log_level: int
    max_body_bytes: int
    max_pixels: int
    decode_seconds: int
    max_requests: int
    drain_seconds: int
    metrics_seconds: int
    metrics_namespace: str | None
    metrics_server: str | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ServingSettings:
        """Read the settings; a SettingsError names every variable that has an unusable value."""
        faults: list[str] = []

        def text(name: str) -> str | None:
            return environment.get(name, "").strip() or None

        def number(name: str, default: int, lowest: int, highest: int) -> int:
            given = text(name)
            if given is None:
                return default
            try:
                value = int(given)
            except ValueError:
                value = lowest - 1
            if not lowest <= value <= highest:
                faults.append(f"{name} is {given!r}; it must be a whole number from {lowest} to {highest}")
                return default
            return value

        vcpus = available_vcpus()
        mode = text("MODEL_SERVER_MODE") or MODES[0]
        if mode not in MODES:
            faults.append(f"MODEL_SERVER_MODE is {mode!r}; it must be one of {', '.join(MODES)}")
        for_latency = mode == "latency"
        workers = number("SAGEMAKER_MODEL_SERVER_WORKERS", 1 if for_latency else vcpus, 1, 512)
        if for_latency and workers > 1:
            faults.append(
                f"SAGEMAKER_MODEL_SERVER_WORKERS is '{workers}'; with MODEL_SERVER_MODE=latency there is one worker, "
                "which uses all vCPUs"
            )
        threads = vcpus if for_latency else 1
        # The queues of a batch transform job are long on purpose: its metrics would spoil an endpoint's.
        for_batch = (text("SAGEMAKER_BATCH") or "").lower() == "true"
        settings = cls(
            model_dir=Path(environment.get("SM_MODEL_DIR") or "/opt/ml/model"),
            artifact_digest=text(artifact_digest.VARIABLE),
            # A container is reached from outside of it, so it has to listen on every address.
            host=environment.get("SAGEMAKER_BIND_TO_HOST") or "0.0.0.0",  # noqa: S104
            port=number("SAGEMAKER_BIND_TO_PORT", 8080, 1, 65535),
            workers=workers,
            threads=threads,
            lone_threads=max(threads, number("MODEL_SERVER_LONE_THREADS", vcpus, 1, 512)),
            timeout_seconds=number("SAGEMAKER_MODEL_SERVER_TIMEOUT", 30, 1, 3600),
            log_level=number("SAGEMAKER_CONTAINER_LOG_LEVEL", logging.INFO, 1, 50),
            max_body_bytes=number("MODEL_SERVER_MAX_BODY_BYTES", MAX_BODY_BYTES, 1024, 1024**3),
            max_pixels=number("MODEL_SERVER_MAX_PIXELS", MAX_PIXELS, 1, 10**9),
            decode_seconds=number("MODEL_SERVER_DECODE_SECONDS", 5, 1, 3600),
            max_requests=number("MODEL_SERVER_MAX_REQUESTS", REQUESTS_PER_WORKER * workers, 1, 100_000),
            # SageMaker kills a container 30 s after it asked it to stop.
            drain_seconds=number("MODEL_SERVER_DRAIN_SECONDS", 25, 1, 3600),
            metrics_seconds=number("MODEL_SERVER_METRICS_SECONDS", 60, 0, 300),
            metrics_namespace=None if for_batch else text("MODEL_SERVER_METRICS_NAMESPACE"),
            metrics_server=text("MODEL_SERVER_METRICS_SERVER"),
        )
        if faults:
            raise SettingsError("; ".join(faults))
        return settings
