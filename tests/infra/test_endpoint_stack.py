"""What the model, the endpoint and its scaling promise."""

from dataclasses import replace

import pytest
from templates import SynthesisedStage, text, write_artifact

from model.core.archives import archive_digest


@pytest.fixture
def variant(stage: SynthesisedStage) -> dict:
    (variant,) = stage.properties("inference", "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    return variant


def test_endpoint_volumes_are_encrypted_with_the_data_key(stage):
    key = stage.properties("inference", "AWS::SageMaker::EndpointConfig")["KmsKeyId"]
    assert text(key) == "<ExportsOutputFnGetAttDataKey5F086070Arn0ECF9F84>"


def test_instances_that_encrypt_their_own_disks_get_no_key(synthesise, stages):
    settings = stages["dev"].settings
    settings = replace(settings, serving=replace(settings.serving, instance_type="ml.g5.xlarge"))
    stage = synthesise(settings)
    assert "KmsKeyId" not in stage.properties("inference", "AWS::SageMaker::EndpointConfig")
    assert "kms:CreateGrant" not in str(stage.resources("inference", "AWS::IAM::Role"))


def deployed_artifact(stage: SynthesisedStage) -> bytes:
    """What the CDK uploads under the key that the model names."""
    url = text(stage.properties("inference", "AWS::SageMaker::Model")["PrimaryContainer"]["ModelDataUrl"])
    digest = url.rsplit("/", 1)[-1].split(".")[0]
    (staged,) = stage.assembly.glob(f"asset.{digest}*")
    return staged.read_bytes()


def test_artifact_is_deployed_as_it_is(synthesise, stages, artifact):
    stage = synthesise(stages["dev"].settings, artifact=artifact)
    assert deployed_artifact(stage) == artifact.read_bytes()
    assert "ArtifactExists" not in str(stage.template("inference")["Rules"])


def test_the_image_is_told_from_outside_the_artifact_what_it_must_hold(synthesise, stages, artifact):
    stage = synthesise(stages["dev"].settings, artifact=artifact)
    container = stage.properties("inference", "AWS::SageMaker::Model")["PrimaryContainer"]
    assert container["Environment"]["MODEL_ARTIFACT_DIGEST"] == archive_digest(artifact)


def test_new_bytes_are_a_new_model_and_the_same_bytes_are_none(synthesise, stages, tmp_path):
    def model(content: bytes, name: str) -> str:
        stage = synthesise(stages["dev"].settings, artifact=write_artifact(tmp_path / name, content))
        return text(stage.properties("inference", "AWS::SageMaker::Model")["PrimaryContainer"]["ModelDataUrl"])

    first = model(b"one", "a.tar.gz")
    assert model(b"two", "a.tar.gz") != first
    assert model(b"one", "b.tar.gz") == first


def test_without_an_artifact_the_deployment_is_refused_with_what_to_do(stage):
    assert "ModelDataUrl" not in stage.properties("inference", "AWS::SageMaker::Model")["PrimaryContainer"]
    (rule,) = (rule for name, rule in stage.template("inference")["Rules"].items() if "ArtifactExists" in name)
    (assertion,) = rule["Assertions"]
    assert assertion["Assert"] == {"Fn::Equals": [{"Ref": "AWS::Region"}, "no artifact"]}
    assert assertion["AssertDescription"] == (
        "No model artifact at does-not-exist.tar.gz: run kennel train, then kennel package"
    )


def test_scaling_tracks_what_one_instance_bears_with_a_margin(stage):
    policy = stage.properties("inference", "AWS::ApplicationAutoScaling::ScalingPolicy")
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["PredefinedMetricSpecification"] == {
        "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
    }
    assert tracking["TargetValue"] == 20 * 0.5 * 60  # requests per second x margin, per minute
    assert (tracking["ScaleOutCooldown"], tracking["ScaleInCooldown"]) == (60, 300)


def test_scaling_is_registered_under_the_variant_within_its_limits(stage, variant):
    target = stage.properties("inference", "AWS::ApplicationAutoScaling::ScalableTarget")
    scaling = stage.settings.serving.scaling
    assert text(target["ResourceId"]) == f"endpoint/<Endpoint8024A810.EndpointName>/variant/{variant['VariantName']}"
    assert target["ScalableDimension"] == "sagemaker:variant:DesiredInstanceCount"
    assert (target["MinCapacity"], target["MaxCapacity"]) == (scaling.min_instances, scaling.max_instances)
    assert "RoleARN" not in target  # the service-linked role


@pytest.mark.parametrize("end", [":7", f"@sha256:{'0' * 64}"])
def test_another_image_needs_no_change_of_code_and_no_build(synthesise, stages, end):
    settings = stages["dev"].settings
    image = f"111122223333.dkr.ecr.eu-west-1.amazonaws.com/team/runtime{end}"
    stage = synthesise(replace(settings, serving=replace(settings.serving, image=image)))
    container = stage.properties("inference", "AWS::SageMaker::Model")["PrimaryContainer"]
    assert container["Image"] == image
    assert "CodeBuild" not in str(stage.template("inference"))
    assert ":ecr:eu-west-1:111122223333:repository/team/runtime'" in str(stage.resources("inference", "AWS::IAM::Role"))
