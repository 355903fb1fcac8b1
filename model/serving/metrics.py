"""How the server is doing: one log line a minute, which CloudWatch turns into metrics where it is told a namespace.

The line is in CloudWatch's embedded metric format, because the container's log is the only thing of it that reaches
CloudWatch: SageMaker forwards no path but `/ping` and `/invocations`, and a container under network isolation calls
nobody.
"""

from __future__ import annotations

import logging
import time
from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.floating[Any]]

# CloudWatch takes at most this many values of a metric from one log line.
_MAX_VALUES = 100
_PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
_TIMES = ("Latency", "QueueTime", "DecodeTime", "InferenceTime")
_COUNTERS = ("Requests", "Refused", "Rejected", "Failed", "WorkerRestarts")

logger = logging.getLogger(__name__)
# These lines are what was asked for with `MODEL_SERVER_METRICS_SECONDS`, so no log level silences them.
logger.setLevel(logging.INFO)


class ServingMetrics:
    """Counts and times since the last report; without a namespace in CloudWatch they stay in the log."""

    def __init__(self, *, namespace: str | None = None, server: str | None = None) -> None:
        self._namespace = namespace
        self.server = server
        self._begin()

    def _begin(self) -> None:
        self._since = time.monotonic()
        # Four bytes a value, not an object each: there may be hundreds of thousands.
        self._samples = {name: array("f") for name in _TIMES}
        self._counts = dict.fromkeys(_COUNTERS, 0)
        self._queue_depth = 0

    def request(self, status: int, seconds: float) -> None:
        """Count an answered request: its status, and the time from its first line to its answer."""
        self._counts["Requests"] += 1
        if status < 400:
            self._samples["Latency"].append(seconds * 1e3)
        elif status == 503:
            self._counts["Rejected"] += 1
        else:
            self._counts["Refused" if status < 500 else "Failed"] += 1

    def queued(self, depth: int) -> None:
        self._queue_depth = max(self._queue_depth, depth)

    def image(self, *, queue: float, decode: float, inference: float) -> None:
        """Count a classified image with the seconds that it waited for a worker, and that the worker took."""
        for name, seconds in zip(_TIMES[1:], (queue, decode, inference), strict=True):
            self._samples[name].append(seconds * 1e3)

    def worker_restarted(self) -> None:
        self._counts["WorkerRestarts"] += 1

    def report(self) -> None:
        """Log what has happened since the last report, unless nothing has, and begin anew."""
        if any(self._counts.values()):
            logger.info("Metrics", extra=self._document())
        self._begin()

    def _document(self) -> dict[str, Any]:
        ordered = {name: np.sort(np.frombuffer(values, "f4")) for name, values in self._samples.items() if values}
        document: dict[str, Any] = {
            "seconds": round(time.monotonic() - self._since, 1),
            "milliseconds": {name: _percentiles(sample) for name, sample in ordered.items()},
            "QueueDepth": self._queue_depth,
            **self._counts,
        }
        if self._namespace is None:
            return document
        names = (*ordered, "QueueDepth", *_COUNTERS)
        directive = {
            "Namespace": self._namespace,
            "Dimensions": [["Server"]],
            "Metrics": [{"Name": name, "Unit": "Milliseconds" if name in _TIMES else "Count"} for name in names],
        }
        described = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
        values = {name: _spread(sample) for name, sample in ordered.items()}
        return {"_aws": described, "Server": self.server or "unknown", **document, **values}


def _percentiles(ordered: _Floats) -> dict[str, float]:
    return {name: round(float(np.percentile(ordered, percent)), 2) for name, percent in _PERCENTILES.items()}


def _spread(ordered: _Floats) -> list[float]:
    """Return no more values than CloudWatch takes, whose mean and percentiles are about those of all."""
    if len(ordered) > _MAX_VALUES:
        # Every percentile but the last, and for what is above them its mean: the maximum would count a hundredfold.
        ordered = np.append(np.percentile(ordered, range(1, 100)), ordered[len(ordered) * 99 // 100 :].mean())
    return [round(float(value), 2) for value in ordered]
