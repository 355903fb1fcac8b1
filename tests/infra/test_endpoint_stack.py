"""What the model, the endpoint and its scaling promise."""

from dataclasses import replace

import pytest
from templates import SynthesisedStage, text

from model.core.archives import archive_digest


def container(stage: SynthesisedStage) -> dict:
    return stage.properties("inference", "AWS::SageMaker::Model")["PrimaryContainer"]


def test_instances_that_encrypt_their_own_disks_get_no_key(synthesise, stages):
    settings = stages["dev"].settings
    settings = replace(settings, serving=replace(settings.serving, instance_type="ml.g5.xlarge"))
    stage = synthesise(settings)
    assert "KmsKeyId" not in stage.properties("inference", "AWS::SageMaker::EndpointConfig")
    assert "kms:CreateGrant" not in str(stage.resources("inference", "AWS::IAM::Role"))


def test_artifact_is_deployed_as_it_is_and_the_image_is_told_its_digest(synthesise, stages, artifact):
    stage = synthesise(stages["dev"].settings, artifact=artifact)
    digest = text(container(stage)["ModelDataUrl"]).rsplit("/", 1)[-1].split(".")[0]
    (uploaded,) = stage.assembly.glob(f"asset.{digest}*")
    assert uploaded.read_bytes() == artifact.read_bytes()
    assert container(stage)["Environment"]["MODEL_ARTIFACT_DIGEST"] == archive_digest(artifact)
    assert "ArtifactExists" not in str(stage.template("inference")["Rules"])


def test_without_an_artifact_the_deployment_is_refused_with_what_to_do(stage):
    assert "ModelDataUrl" not in container(stage)
    (rule,) = (rule for name, rule in stage.template("inference")["Rules"].items() if "ArtifactExists" in name)
    (assertion,) = rule["Assertions"]
    assert assertion["Assert"] == {"Fn::Equals": [{"Ref": "AWS::Region"}, "no artifact"]}
    assert assertion["AssertDescription"] == (
        "No model artifact at does-not-exist.tar.gz: run kennel train, then kennel package"
    )


@pytest.mark.parametrize("end", [":7", f"@sha256:{'0' * 64}"])
def test_another_image_needs_no_change_of_code_and_no_build(synthesise, stages, end):
    settings = stages["dev"].settings
    image = f"111122223333.dkr.ecr.eu-west-1.amazonaws.com/team/runtime{end}"
    stage = synthesise(replace(settings, serving=replace(settings.serving, image=image)))
    assert container(stage)["Image"] == image
    assert "CodeBuild" not in str(stage.template("inference"))
    assert ":ecr:eu-west-1:111122223333:repository/team/runtime'" in str(stage.resources("inference", "AWS::IAM::Role"))


def test_the_function_calls_an_endpoint_of_another_kind_once_it_is_there(stages):
    for stage in stages.values():
        function = stage.resources("inference", "AWS::Lambda::Function")["ClassifierFunction1A3EEE90"]
        assert "Endpoint8024A810" in function["DependsOn"]
