"""Metrics in CloudWatch's embedded metric format: CloudWatch Logs turns one JSON line per request into metrics."""

from __future__ import annotations

import time
from typing import Any

_COUNT, _MILLISECONDS = "Count", "Milliseconds"


def document(
    namespace: str, function_name: str, *, code: str | None, latency_ms: float, endpoint_latency_ms: float | None
) -> dict[str, Any]:
    """Return one request's metrics; `code` is None when it succeeded, the endpoint's latency when it was not called.

    ``Errors`` is counted twice: over all (0 or 1, so that its average is the error rate) and by the dimension ``Code``.
    """
    metrics = {"Requests": _COUNT, "Errors": _COUNT, "Latency": _MILLISECONDS}
    values: dict[str, Any] = {"FunctionName": function_name, "Requests": 1}
    values |= {"Errors": int(code is not None), "Latency": latency_ms}
    if endpoint_latency_ms is not None:
        metrics["EndpointLatency"] = _MILLISECONDS
        values["EndpointLatency"] = endpoint_latency_ms
    directives = [_directive(namespace, ["FunctionName"], metrics)]
    if code is not None:
        values["Code"] = code
        directives.append(_directive(namespace, ["FunctionName", "Code"], {"Errors": _COUNT}))
    return {"_aws": {"Timestamp": time.time_ns() // 1_000_000, "CloudWatchMetrics": directives}, **values}


def _directive(namespace: str, dimensions: list[str], metrics: dict[str, str]) -> dict[str, Any]:
    named = [{"Name": name, "Unit": unit} for name, unit in metrics.items()]
    return {"Namespace": namespace, "Dimensions": [dimensions], "Metrics": named}
