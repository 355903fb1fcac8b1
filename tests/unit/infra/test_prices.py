"""The table of prices: what the settings name is in it, and what is computed agrees with what AWS publishes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from infra import prices, settings

TABLE = tomllib.loads((Path(prices.__file__).parent / "table.toml").read_text(encoding="utf-8"))
CPU_FAMILIES = ("t3", "m5", "c5")


@pytest.mark.parametrize("stage", settings.stages())
def test_every_instance_type_of_a_stage_has_a_price(stage):
    loaded = settings.load(stage)
    types = [loaded.serving.instance_type, loaded.training.instance_type, settings.NotebookSettings().instance_type]
    types += [loaded.training.ec2.instance_type] if loaded.training.ec2 else []
    assert all((prices.usd_per_hour(name) or 0) > 0 for name in types), types


def test_a_type_that_the_table_does_not_have_has_no_price():
    assert prices.usd_per_hour("ml.r7i.48xlarge") is None and prices.usd_per_hour("u-6tb1.metal") is None


@pytest.mark.parametrize("name", [name for name in TABLE["sagemaker"] if name.split(".")[1] in CPU_FAMILIES])
def test_the_rule_for_prices_that_are_computed_holds_for_those_that_are_published(name):
    computed = TABLE["ec2"][name.removeprefix("ml.")] * TABLE["sagemaker_from_ec2"]["factor"]
    assert TABLE["sagemaker"][name] == pytest.approx(computed, rel=0.003)


def test_computed_prices_round_to_those_that_are_known_to_two_digits():
    known = {"ml.m7i.large": 0.12, "ml.c7i.large": 0.11, "ml.c7i.4xlarge": 0.86, "ml.c7g.large": 0.09}
    assert {name: round(prices.usd_per_hour(name) or 0, 2) for name in known} == known


def test_a_serverless_endpoint_costs_by_memory_and_a_million_images_by_rate():
    assert prices.serverless_usd_per_second(3072) == pytest.approx(0.00006)
    assert prices.usd_per_million_images(0.36, 10) == pytest.approx(10)
