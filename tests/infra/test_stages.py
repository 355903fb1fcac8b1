"""What holds between stages, and between one deployment and the next."""

import json
import re
from dataclasses import replace

import pytest
from templates import KINDS, SynthesisedStage

from infra.settings import load

# A renamed bucket is a deleted bucket, a renamed URL another address for every caller. Before a line changes here,
# move what is stored under the old id.
LOGICAL_IDS = {
    ("storage", "AWS::KMS::Key"): {"DataKey5F086070"},
    ("storage", "AWS::S3::Bucket"): {"DataAccessLogsC0C25EE4", "DataBucketE6B0FAA8"},
    ("inference", "AWS::Logs::LogGroup"): {"ClassifierLogsA5745F3E"},
    ("inference", "AWS::SageMaker::Endpoint"): {"Endpoint8024A810"},
    ("inference", "AWS::Lambda::Function"): {"ClassifierFunction1A3EEE90"},
    ("inference", "AWS::Lambda::Alias"): {"ClassifierLiveC9A00DE4"},
    ("inference", "AWS::Lambda::Url"): {"ClassifierLiveFunctionUrlC18E0F11"},
}

OUTPUTS = {
    "storage": {"DataBucketName", "DataKeyArn", "ImageRepositoryUri"},
    "training": {"TrainingRoleArn", "TrainingLaunchTemplateId", "TrainingSubnetIds", "TrainingInstanceLogGroup"},
    "inference": {"EndpointName", "FunctionUrl", "FunctionName", "FunctionAliasArn"},
}

# Properties that would fix a physical name.
NAMES = re.compile(r'"(BucketName|RoleName|FunctionName|LogGroupName|KeyName|AliasName)": "')


def shape(stage: SynthesisedStage) -> set[tuple[str, str, str]]:
    """Stack, type and logical id of every resource; the version's id also holds a hash of the settings."""
    return {
        (kind, resource["Type"], "" if resource["Type"] == "AWS::Lambda::Version" else name)
        for kind, name, resource in stage.all_resources()
    }


def permissions(stage: SynthesisedStage) -> list[str]:
    """Every policy document of the stage, the stage's name taken out."""
    documents = []
    for kind, name, resource in stage.all_resources():
        properties = resource["Properties"]
        for key in ("AssumeRolePolicyDocument", "Policies", "PolicyDocument", "KeyPolicy"):
            if key in properties:
                document = json.dumps(properties[key], sort_keys=True)
                documents.append(f"{kind}/{name}: {document}".replace(f"-{stage.settings.stage}-", "-STAGE-"))
    return documents


@pytest.mark.parametrize(("where", "names"), LOGICAL_IDS.items(), ids=lambda value: str(value))
def test_logical_ids_of_what_must_not_be_replaced_never_change(stage, where, names):
    assert set(stage.resources(*where)) >= names


@pytest.mark.parametrize("other", ["local", "prod"])
def test_stages_differ_in_settings_only(stages, other):
    assert shape(stages[other]) == shape(stages["dev"])
    assert permissions(stages[other]) == permissions(stages["dev"])


@pytest.mark.parametrize("kind", KINDS)
def test_stacks_have_the_names_and_outputs_that_the_command_line_looks_for(stage, kind):
    assert stage.settings.stack_name(kind) == f"kennel-{stage.settings.stage}-{kind}"
    outputs = {name for name, output in stage.template(kind)["Outputs"].items() if "Export" not in output}
    assert outputs == OUTPUTS[kind]


def test_everything_that_can_be_tagged_carries_project_and_stage(stage):
    tagged = [resource for _, _, resource in stage.all_resources() if "Tags" in resource["Properties"]]
    for resource in tagged:
        tags = {tag["Key"]: tag["Value"] for tag in resource["Properties"]["Tags"]}
        assert tags == {"project": "kennel", "stage": stage.settings.stage}
    billed = ("S3::Bucket", "KMS::Key", "SageMaker::Model", "SageMaker::Endpoint", "Lambda::Function", "Logs::LogGroup")
    assert {resource["Type"] for resource in tagged} >= {f"AWS::{kind}" for kind in billed}


@pytest.mark.parametrize("kind", KINDS)
def test_physical_names_are_generated(stage, kind):
    assert not NAMES.findall(json.dumps(stage.template(kind)["Resources"]))


def test_templates_hold_for_any_account_and_region(stage):
    text = "".join(json.dumps(stage.template(kind)["Resources"]) for kind in KINDS)
    assert not re.search(r"\b(us|eu|ap)-[a-z]+-\d\b", text)
    assert not re.findall(r"\b\d{12}\b", text)


def test_a_stage_can_be_tied_to_one_account_and_region(synthesise):
    settings = replace(load("prod"), account="111122223333", region="eu-west-1")
    stage = synthesise(settings)
    manifest = (stage.assembly / "manifest.json").read_text(encoding="utf-8")
    assert manifest.count('"environment": "aws://111122223333/eu-west-1"') == len(KINDS)


def test_templates_need_nothing_beyond_cloudformation_but_the_images_builder(stage):
    types = {resource["Type"] for _, _, resource in stage.all_resources()}
    assert {name for name in types if name.startswith(("Custom::", "AWS::CloudFormation::"))} == {
        "Custom::ContainerImage"
    }
