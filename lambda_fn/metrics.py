"""Metrics in CloudWatch's embedded metric format: CloudWatch Logs turns one JSON line per request into metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any


def document(namespace: str, function_name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of one request, given what is logged about it.

    ``Errors`` is counted twice: over all (0 or 1, so that its average is the error rate) and by the dimension ``Code``.
    """
    values = {"Requests": 1, "Errors": int("code" in record), "Latency": record["duration_ms"]}
    if "endpoint_ms" in record:
        values["EndpointLatency"] = record["endpoint_ms"]
    directives = [_directive(namespace, ["FunctionName"], values)]
    dimensions = {"FunctionName": function_name}
    if "code" in record:
        directives.append(_directive(namespace, ["FunctionName", "Code"], ["Errors"]))
        dimensions["Code"] = record["code"]
    described = {"Timestamp": time.time_ns() // 1_000_000, "CloudWatchMetrics": directives}
    return {"_aws": described, **dimensions, **values}


def _directive(namespace: str, dimensions: list[str], names: Iterable[str]) -> dict[str, Any]:
    metrics = [{"Name": name, "Unit": "Milliseconds" if name.endswith("Latency") else "Count"} for name in names]
    return {"Namespace": namespace, "Dimensions": [dimensions], "Metrics": metrics}
