"""What a stage costs, as it is said before a deployment."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from cli.operating.costs import FUNCTION_METRICS, SERVER_METRICS, cost_lines
from infra import settings
from lambda_fn import errors, metrics
from model.serving.metrics import ServingMetrics


def costs(stage: str, *kinds: str, **serving: Any) -> str:
    loaded = settings.load(stage)
    return "\n".join(cost_lines(replace(loaded, serving=replace(loaded.serving, **serving)), list(kinds)))


def test_costs_are_said_at_rest_and_at_the_most() -> None:
    printed = costs("prod", "storage", "training", "inference")
    assert "2 to 8 × ml.m5.xlarge: 0.460 USD an hour at rest, 1.840 at full load" in printed
    assert "up to 3.680" in printed
    # 2 × 0.23 and 2 × 0.012 for 730 hours; 8 × 0.23 and 2 × 0.012
    assert "endpoint and function: 353 USD a month at rest, 1361 at full load" in printed
    assert "key 1.00 USD a month" in printed
    assert "2 alarms of scaling, 0.20 USD a month" in printed
    assert "28 metrics, 8.40 USD a month" in printed
    assert "logs 0.50 USD for each GB" in printed
    assert "November 2026" in printed


def test_an_unknown_price_is_called_unknown_and_never_nothing() -> None:
    printed = costs("dev", "inference", instance_type="ml.r7i.48xlarge")
    assert "price of ml.r7i.48xlarge unknown" in printed
    assert "endpoint and function: unknown" in printed
    assert "0.000" not in printed.split("endpoint")[1].splitlines()[0]


def test_provisioned_concurrency_is_said_at_its_minimum_and_maximum() -> None:
    loaded = settings.load("local")
    scaling = SimpleNamespace(min_provisioned=1, max_provisioned=10)
    function = replace(loaded.function, memory_mb=1024, provisioned_concurrency=1, scaling=scaling)
    printed = "\n".join(cost_lines(replace(loaded, function=function), ["inference"]))
    assert "function, 1 to 10 kept warm: 0.0120 USD an hour at rest, 0.1200 at full load" in printed
    assert "4 alarms of scaling, 0.40 USD a month" in printed


def test_the_metrics_that_are_counted_are_those_that_are_written() -> None:
    codes = [kind.code for kind in subclasses(errors.ServiceError) if "code" in vars(kind)]
    found = {
        (tuple(dimensions), metric["Name"], code if "Code" in dimensions else "")
        for code in [None, *codes]
        for directive in metrics.document(
            namespace="n", function_name="f", code=code, latency_ms=1, endpoint_latency_ms=1
        )["_aws"]["CloudWatchMetrics"]
        for dimensions in directive["Dimensions"]
        for metric in directive["Metrics"]
    }
    assert len(found) == FUNCTION_METRICS
    server = ServingMetrics(namespace="n", server="s")
    server.request(200, 1.0)
    server.batch(1)
    server.image(queue=1.0, decode=1.0, inference=1.0)
    (directive,) = server._document()["_aws"]["CloudWatchMetrics"]
    assert len(directive["Metrics"]) == SERVER_METRICS


def subclasses(kind: type[Any]) -> set[type[Any]]:
    return {kind for child in kind.__subclasses__() for kind in (child, *subclasses(child))}
