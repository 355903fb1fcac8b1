"""What a stage costs, as it is said before a deployment."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from cli.operating.costs import cost_lines
from infra import settings


def test_costs_are_said_at_rest_and_at_the_most():
    loaded = settings.load("prod")
    function = replace(loaded.function, scaling=SimpleNamespace(min_provisioned=1, max_provisioned=10))
    printed = "\n".join(cost_lines(replace(loaded, function=function), ["storage", "training", "inference"]))
    for part in (
        "2 to 8 × ml.m5.xlarge: 0.460 USD an hour at rest, 1.840 at full load",
        "up to 3.680",
        "function, 1 to 10 kept warm: 0.0120 USD an hour at rest, 0.1200 at full load",
        # 2 × 0.23 and 0.012 for 730 hours; 8 × 0.23 and 10 × 0.012
        "endpoint and function: 345 USD a month at rest, 1431 at full load",
        "key 1.00 USD a month",
        "4 alarms of scaling, 0.40 USD a month",
        "27 metrics, 8.10 USD a month",
    ):
        assert part in printed


def test_an_unknown_price_is_called_unknown_and_never_nothing():
    loaded = settings.load("dev")
    unknown = replace(loaded.serving, instance_type="ml.r7i.48xlarge")
    printed = "\n".join(cost_lines(replace(loaded, serving=unknown), ["inference"]))
    assert "price of ml.r7i.48xlarge unknown" in printed and "endpoint and function: unknown" in printed
