"""What SageMaker may do for us, and what not."""

import json
from dataclasses import replace

import pytest
from templates import SynthesisedStage, allowed, text, write_artifact

from infra.settings import NotebookSettings
from infra.tables.security import SecuritySettings


def deployed_role(stage: SynthesisedStage) -> tuple[str, dict]:
    name = stage.properties("inference", "AWS::SageMaker::Model")["ExecutionRoleArn"]["Fn::GetAtt"][0]
    return name, stage.template("inference")["Resources"][name]


def test_a_model_reads_its_own_artifact_and_the_next_one_has_a_role_of_its_own(synthesise, stages, tmp_path):
    def deploy(content: bytes, name: str = "a.tar.gz") -> tuple[str, str]:
        role_id, role = deployed_role(synthesise(stages["dev"].settings, write_artifact(tmp_path / name, content)))
        (arn,) = (arn for arn in allowed(role)["s3:GetObject"] if not arn.endswith("/*"))
        assert arn.startswith("arn:<AWS::Partition>:s3:::cdk-hnb659fds-assets-")
        assert arn.endswith(".gz")
        assert "*" not in arn
        return role_id, arn

    first, second = deploy(b"one"), deploy(b"two")
    assert not set(first) & set(second)
    assert deploy(b"one", "b.tar.gz") == first


def test_a_models_role_follows_from_what_it_may_do_and_nothing_else(synthesise, stages):
    settings = stages["dev"].settings
    other = replace(settings, serving=replace(settings.serving, initial_instances=2, startup_timeout_seconds=900))
    assert deployed_role(synthesise(other)) == deployed_role(stages["dev"])


ARN = "arn:aws:iam::111122223333:policy/team/limit"


@pytest.mark.parametrize(
    ("given", "boundary"), [("limit", "arn:<AWS::Partition>:iam::<AWS::AccountId>:policy/limit"), (ARN, ARN)]
)
def test_every_role_has_the_permissions_boundary_of_the_settings(synthesise, stages, given, boundary):
    security = SecuritySettings(permissions_boundary=given)
    stage = synthesise(replace(stages["local"].settings, notebook=NotebookSettings(), security=security))
    roles = [resource["Properties"] for _, _, resource in stage.all_resources() if resource["Type"] == "AWS::IAM::Role"]
    assert {text(role["PermissionsBoundary"]) for role in roles} == {boundary}
    assert "PermissionsBoundary" not in json.dumps(stages["local"].template("training"))
