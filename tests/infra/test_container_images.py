"""Where AWS's images are: one table, the SDK's, for command line and templates; the CDK's agrees with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from aws_cdk.region_info import RegionInfo

from infra.container_images import ContainerImage, image_accounts, url_suffix
from infra.settings import load

KNOWN = {region.name: region for region in RegionInfo.regions}


def test_the_cdk_knows_no_other_account():
    by_cdk = {name: region.dlc_repository_account for name, region in KNOWN.items() if region.dlc_repository_account}
    assert len(by_cdk) > 25
    assert by_cdk == {name: image_accounts()[name] for name in by_cdk}


@pytest.mark.parametrize("region", sorted(KNOWN))
def test_hosts_end_as_in_the_cdks_table(region):
    assert url_suffix(region) == KNOWN[region].domain_suffix


def test_the_template_has_the_account_of_every_region(stage):
    mapping = stage.template("training")["Mappings"]["ImageAccounts"]
    assert {region: entry["id"] for region, entry in mapping.items()} == image_accounts()


def test_the_template_refuses_regions_without_awss_images(stage):
    (assertion,) = stage.template("training")["Rules"]["RegionHasImages"]["Assertions"]
    assert assertion["Assert"] == {"Fn::Contains": [list(image_accounts()), {"Ref": "AWS::Region"}]}
    assert "AWS gives out no Deep Learning Containers in this region" in assertion["AssertDescription"]


def test_images_of_ones_own_can_be_anywhere(synthesise):
    dev, account = load("dev"), "111122223333"
    image = ContainerImage(repository="mine", tag="1", account=account)
    stage = synthesise(replace(dev, training=replace(dev.training, image=image), project="mine"))
    for kind in ("training", "inference"):
        assert "Mappings" not in stage.template(kind)
        assert "RegionHasImages" not in stage.template(kind).get("Rules", {})
    assert f":{account}:repository/mine" in str(stage.resources("training", "AWS::IAM::Role"))
