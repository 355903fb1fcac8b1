"""What the data bucket promises, and what the storage stack exports."""

import itertools
from dataclasses import replace

import pytest
from templates import Resource, SynthesisedStage

from infra.settings import NotebookSettings

#: By logical id of the output: the bucket's name and ARN, the key's ARN, and the repository's name and ARN.
EXPORTS = {
    "ExportsOutputRefDataBucketE6B0FAA83794BF10",
    "ExportsOutputFnGetAttDataBucketE6B0FAA8Arn3FF3A9FF",
    "ExportsOutputFnGetAttDataKey5F086070Arn0ECF9F84",
    "ExportsOutputRefImages2D38C3131DF9B1C4",
    "ExportsOutputFnGetAttImages2D38C313Arn6C6DDC6E",
}


@pytest.fixture
def buckets(stage: SynthesisedStage) -> dict[str, Resource]:
    return stage.resources("storage", "AWS::S3::Bucket")


def test_every_bucket_denies_everything_over_old_tls(stage, buckets):
    condition = {"NumericLessThan": {"s3:TlsVersion": 1.2}}
    policies = stage.resources("storage", "AWS::S3::BucketPolicy").values()
    for name in buckets:
        (policy,) = (p["Properties"] for p in policies if p["Properties"]["Bucket"] == {"Ref": name})
        (denied,) = (s for s in policy["PolicyDocument"]["Statement"] if s.get("Condition") == condition)
        arn = {"Fn::GetAtt": [name, "Arn"]}
        assert denied["Effect"] == "Deny"
        assert denied["Action"] == "s3:*"
        assert denied["Principal"] == {"AWS": "*"}
        assert denied["Resource"] == [arn, {"Fn::Join": ["", [arn, "/*"]]}]


def test_production_data_outlives_its_stack(stages):
    policies = {
        stage: {
            resource["DeletionPolicy"]
            for _, name, resource in stages[stage].all_resources()
            # What a build of the image logs is worth nothing once the image is there.
            if is_stateful(resource) and not name.startswith("ImageBuild")
        }
        for stage in stages
    }
    assert policies == {name: {"Retain" if name == "prod" else "Delete"} for name in stages}


def test_production_storage_cannot_be_deleted_by_mistake(stages):
    manifests = {name: (stage.assembly / "manifest.json").read_text() for name, stage in stages.items()}
    protected = {name: '"terminationProtection": true' in text for name, text in manifests.items()}
    assert protected == {name: name == "prod" for name in stages}


def is_stateful(resource: Resource) -> bool:
    kinds = ("S3::Bucket", "KMS::Key", "Logs::LogGroup", "SageMaker::ModelPackageGroup")
    return resource["Type"] in {f"AWS::{kind}" for kind in kinds}


@pytest.mark.parametrize(
    ("ec2", "notebook", "instance_type"),
    # The second instance type takes no key for its disks.
    [*itertools.product((False, True), (None, NotebookSettings()), ("ml.m5.large", "ml.m5d.large"))],
)
def test_storage_exports_the_same_whatever_the_other_stacks_hold(synthesise, stages, ec2, notebook, instance_type):
    """CloudFormation takes away no export that is still imported: a setting that changed them could not be changed."""
    dev = stages["dev"].settings
    image = "own" if ec2 else "111122223333.dkr.ecr.eu-west-1.amazonaws.com/team/runtime:7"
    training = replace(dev.training, ec2=dev.training.ec2 if ec2 else None)
    serving = replace(dev.serving, instance_type=instance_type, image=image)
    stage = synthesise(replace(dev, training=training, notebook=notebook, serving=serving))
    assert {name for name, output in stage.template("storage")["Outputs"].items() if "Export" in output} == EXPORTS
