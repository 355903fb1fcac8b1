"""Metrics in CloudWatch's embedded metric format: one JSON line per request on standard output.

CloudWatch Logs turns the lines into metrics; there is no call to make and no permission to hold.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

_COUNT, _MILLISECONDS = "Count", "Milliseconds"


def document(
    *, namespace: str, function_name: str, code: str | None, latency_ms: float, endpoint_latency_ms: float | None
) -> dict[str, Any]:
    """Return one request's metrics.

    Parameters
    ----------
    namespace, function_name
        Where the metrics are found: the namespace, and the dimension ``FunctionName``.
    code
        The error's code, or None when the request succeeded. ``Errors`` is counted twice: over all (0 or 1, so that its
        average is the error rate) and by the further dimension ``Code``.
    latency_ms, endpoint_latency_ms
        The whole request, and the part that the endpoint took (None: it was not called).
    """
    metrics = {"Requests": _COUNT, "Errors": _COUNT, "Latency": _MILLISECONDS}
    values: dict[str, Any] = {
        "FunctionName": function_name,
        "Requests": 1,
        "Errors": int(code is not None),
        "Latency": latency_ms,
    }
    if endpoint_latency_ms is not None:
        metrics["EndpointLatency"] = _MILLISECONDS
        values["EndpointLatency"] = endpoint_latency_ms
    directives = [_directive(namespace, ["FunctionName"], metrics)]
    if code is not None:
        values["Code"] = code
        directives.append(_directive(namespace, ["FunctionName", "Code"], {"Errors": _COUNT}))
    return {"_aws": {"Timestamp": time.time_ns() // 1_000_000, "CloudWatchMetrics": directives}, **values}


def emit(metrics: dict[str, Any]) -> None:
    """Write one request's metrics to standard output, in one write: lines of several processes cannot mix."""
    sys.stdout.write(json.dumps(metrics, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def _directive(namespace: str, dimensions: list[str], metrics: dict[str, str]) -> dict[str, Any]:
    named = [{"Name": name, "Unit": unit} for name, unit in metrics.items()]
    return {"Namespace": namespace, "Dimensions": [dimensions], "Metrics": named}
