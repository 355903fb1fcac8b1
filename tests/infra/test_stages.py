"""What holds between stages, and between one deployment and the next."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from templates import KINDS, Resource, SynthesisedStage

from infra.container_images import ContainerImage, image_accounts
from infra.settings import load

# A renamed bucket is a deleted bucket, a renamed URL another address for every caller. Before a line changes here,
# move what is stored under the old id.
LOGICAL_IDS = {
    ("storage", "AWS::KMS::Key"): {"DataKey5F086070"},
    ("storage", "AWS::S3::Bucket"): {"DataAccessLogsC0C25EE4", "DataBucketE6B0FAA8"},
    ("storage", "AWS::SageMaker::ModelPackageGroup"): {"Models"},
    ("inference", "AWS::Logs::LogGroup"): {"ClassifierLogsA5745F3E"},
    ("inference", "AWS::SageMaker::Endpoint"): {"Endpoint8024A810"},
    ("inference", "AWS::Lambda::Function"): {"ClassifierFunction1A3EEE90"},
    ("inference", "AWS::Lambda::Alias"): {"ClassifierLiveC9A00DE4"},
    ("inference", "AWS::Lambda::Url"): {"ClassifierLiveFunctionUrlC18E0F11"},
}

# The function's version and the endpoint's role: other settings, or other permissions, are another one.
HASHED = re.compile(r"^(ClassifierFunctionCurrentVersion|EndpointRole).+")


def plain(name: str) -> str:
    """A logical id without the hash of what differs between stages."""
    return HASHED.sub(r"\1", name)


# Properties that would fix a physical name.
NAMES = re.compile(r'"(BucketName|RoleName|FunctionName|LogGroupName|KeyName|AliasName)": "')


def _alike(stage: SynthesisedStage) -> Iterator[tuple[str, str, Resource]]:
    """All but what stops what was forgotten: there is none where the settings only tell."""
    return (found for found in stage.all_resources() if not found[1].startswith("CostGuard"))


def shape(stage: SynthesisedStage) -> set[tuple[str, str, str]]:
    return {(kind, resource["Type"], plain(name)) for kind, name, resource in _alike(stage)}


def permissions(stage: SynthesisedStage) -> list[str]:
    """Every policy document of the stage, the stage's name taken out."""
    documents = []
    for kind, name, resource in _alike(stage):
        properties = resource["Properties"]
        for key in ("AssumeRolePolicyDocument", "Policies", "PolicyDocument", "KeyPolicy"):
            if key in properties:
                document = json.dumps(properties[key], sort_keys=True)
                same = f"{kind}/{plain(name)}: {document}".replace(f"-{stage.settings.stage}-", "-STAGE-")
                documents.append(same)
    return documents


def test_logical_ids_of_what_must_not_be_replaced_never_change(stage):
    for where, names in LOGICAL_IDS.items():
        assert set(stage.resources(*where)) >= names


@pytest.mark.parametrize("other", ["local", "prod"])
def test_stages_differ_in_settings_only(stages, other):
    assert shape(stages[other]) == shape(stages["dev"])
    assert permissions(stages[other]) == permissions(stages["dev"])


#: Types that take no tags; a launch template, which takes them elsewhere, costs nothing.
UNTAGGED = {
    *("ApplicationAutoScaling::ScalingPolicy", "EC2::LaunchTemplate", "EC2::Route", "EC2::VPCGatewayAttachment"),
    *("EC2::SubnetRouteTableAssociation", "IAM::InstanceProfile", "Lambda::Alias", "Lambda::Permission"),
    *("IAM::ManagedPolicy", "Lambda::Url", "Lambda::Version", "S3::BucketPolicy", "SNS::TopicPolicy", "ContainerImage"),
}


def test_everything_that_can_be_tagged_carries_project_and_stage(stages):
    for stage in stages.values():
        for _, _, resource in stage.all_resources():
            properties = resource["Properties"]
            if (given := properties.get("Tags") or properties.get("ResourceTags")) is not None:
                tags = {tag["Key"]: tag["Value"] for tag in given}
                assert tags == {"project": "kennel", "stage": stage.settings.stage}
            else:
                assert resource["Type"].partition("::")[2] in UNTAGGED


def test_templates_hold_for_any_account_and_region_and_name_nothing(stage):
    text = "".join(json.dumps(stage.template(kind)["Resources"]) for kind in KINDS)
    assert not NAMES.findall(text)
    assert not re.search(r"\b(us|eu|ap)-[a-z]+-\d\b", text)
    assert not re.findall(r"\b\d{12}\b", text)


def test_a_stage_can_be_tied_to_one_account_and_region(synthesise):
    stage = synthesise(replace(load("prod"), account="111122223333", region="eu-west-1"))
    manifest = (stage.assembly / "manifest.json").read_text(encoding="utf-8")
    assert '"missing"' not in manifest  # no look-up
    assert manifest.count('"environment": "aws://111122223333/eu-west-1"') == len(KINDS)


def test_awss_training_image_is_found_in_every_region_that_has_it_and_the_others_are_refused(stage):
    template = stage.template("training")
    accounts = {region: entry["id"] for region, entry in template["Mappings"]["ImageAccounts"].items()}
    (assertion,) = template["Rules"]["RegionHasImages"]["Assertions"]
    assert accounts == image_accounts()
    assert assertion["Assert"] == {"Fn::Contains": [list(accounts), {"Ref": "AWS::Region"}]}
    assert "AWS gives out no Deep Learning Containers in this region" in assertion["AssertDescription"]


def test_a_training_image_of_ones_own_can_be_anywhere(synthesise):
    dev, account = load("dev"), "111122223333"
    image = ContainerImage(repository="mine", tag="1", account=account)
    stage = synthesise(replace(dev, training=replace(dev.training, image=image)))
    assert "Mappings" not in stage.template("training")
    assert "RegionHasImages" not in stage.template("training")["Rules"]
    assert f":{account}:repository/mine" in str(stage.resources("training", "AWS::IAM::Role"))
