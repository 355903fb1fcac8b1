"""Instance types: what their names say, and the table of their prices, computed ones as AWS publishes them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from examples import examples

from infra import instance_types, prices, settings

TABLE = tomllib.loads((Path(prices.__file__).parent / "table.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("stage", settings.stages())
def test_every_instance_type_of_a_stage_has_a_price(stage):
    loaded = settings.load(stage)
    types = [loaded.serving.instance_type, loaded.training.instance_type, settings.NotebookSettings().instance_type]
    types += [loaded.training.ec2.instance_type] if loaded.training.ec2 else []
    assert all((prices.usd_per_hour(name) or 0) > 0 for name in types), types


@pytest.mark.parametrize("family", ["t3", "m5", "c5"])
def test_the_rule_for_prices_that_are_computed_holds_for_those_that_are_published(family):
    for size, published in TABLE["sagemaker"][family].items():
        computed = TABLE["ec2"][family][size] * TABLE["sagemaker_from_ec2"]["factor"]
        assert published == pytest.approx(computed, rel=0.003)


@pytest.mark.parametrize(("name", "usd", "note"), examples(__file__, "prices"))
def test_a_price_says_whether_it_is_published_computed_or_unknown(name, usd, note):
    assert prices.usd_per_hour(name) == pytest.approx(usd) and prices.price_note(name) == note


def test_volumes_count_where_instances_have_no_disks_of_their_own_and_a_million_images_by_rate():
    assert prices.serverless_usd_per_second(3072) == pytest.approx(0.00006)
    assert prices.usd_per_million_images(0.36, 10) == pytest.approx(10)
    assert prices.endpoint_usd_per_hour("ml.m5.large") == pytest.approx(0.115 + 30 * 0.14 / 730)
    assert prices.endpoint_usd_per_hour("ml.g4dn.xlarge") == prices.usd_per_hour("ml.g4dn.xlarge")


@pytest.mark.parametrize(
    ("name", "architecture", "local_storage"),
    [
        ("ml.m5.large", "x86_64", False), ("ml.m5d.large", "x86_64", True), ("ml.c7g.large", "arm64", False),
        ("ml.m6gd.16xlarge", "arm64", True), ("ml.c6gn.large", "arm64", False), ("ml.g4dn.xlarge", "x86_64", True),
        ("ml.g5.xlarge", "x86_64", True), ("g5g.xlarge", "arm64", False), ("ml.p3.2xlarge", "x86_64", False),
        ("ml.p4d.24xlarge", "x86_64", True), ("ml.p6-b200.48xlarge", "x86_64", True),
        ("ml.p6e-gb200.36xlarge", "arm64", True), ("ml.trn1n.32xlarge", "x86_64", True),
        ("ml.inf2.xlarge", "x86_64", False), ("ml.c7i-flex.large", "x86_64", False), ("t4g.xlarge", "arm64", False),
    ],
)  # fmt: skip
def test_a_name_says_the_instruction_set_and_whether_there_are_disks(name, architecture, local_storage):
    assert instance_types.architecture(name) == architecture
    assert instance_types.has_local_storage(name) is local_storage


def test_each_service_knows_its_own_names():
    assert {"ml.m5.large", "ml.g5.xlarge", "ml.c7g.large"} <= instance_types.hosting()
    assert "ml.c7g.large" not in instance_types.training()
    assert "ml.t3.medium" in instance_types.notebook()
    assert {"t3.xlarge", "g4dn.xlarge"} <= instance_types.ec2()
