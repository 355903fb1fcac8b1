"""What SageMaker may do for us, and what not."""

from dataclasses import replace

import pytest
from templates import SynthesisedStage, allowed, condition, role_for, statements, text, write_artifact

from infra.settings import NotebookSettings

BUCKET = "<ExportsOutputFnGetAttDataBucketE6B0FAA8Arn3FF3A9FF>"
KEY = "<ExportsOutputFnGetAttDataKey5F086070Arn0ECF9F84>"
TRAINING, ENDPOINT = ROLES = [("training", "SageMaker training jobs"), ("inference", "SageMaker endpoint")]

ALARMS = "arn:<AWS::Partition>:cloudwatch:<AWS::Region>:<AWS::AccountId>:alarm"
LOGS = "arn:<AWS::Partition>:logs:<AWS::Region>:<AWS::AccountId>:log-group:/aws/sagemaker"
WRITE_LOGS = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")
PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
WITHOUT_RESOURCES = {action: {"*"} for action in ("ecr:GetAuthorizationToken", "cloudwatch:PutMetricData")}
USE_KEY = {action: {KEY} for action in ("kms:Decrypt", "kms:GenerateDataKey", "kms:Encrypt")}


def objects(*prefixes: str) -> set[str]:
    return {f"{BUCKET}/{prefix}/*" for prefix in prefixes}


def log_groups(*names: str) -> set[str]:
    return {f"{LOGS}/{name}{streams}" for name in names for streams in ("", ":log-stream:*")}


def namespaces(*names: str) -> dict:
    return {"StringEquals": {"cloudwatch:namespace": [f"/aws/sagemaker/{name}" for name in names]}}


def test_a_training_job_may_do_this_and_nothing_else(stage):
    repository = "arn:<AWS::Partition>:ecr:<AWS::Region>:<ImageAccounts.<AWS::Region>.id>:repository/pytorch"
    role = role_for(stage, *TRAINING)
    assert allowed(role) == {
        "s3:ListBucket": {BUCKET},
        "s3:GetObject": objects("datasets", "code", "weights", "checkpoints"),
        **dict.fromkeys(("s3:PutObject", "s3:AbortMultipartUpload"), objects("training", "checkpoints")),
        "s3:DeleteObject": objects("checkpoints"),
        **USE_KEY,
        **{action: {repository} for action in PULL},
        **dict.fromkeys(WRITE_LOGS, log_groups("TrainingJobs")),
        **WITHOUT_RESOURCES,
    }
    listed = condition(role, "s3:ListBucket")["StringLike"]["s3:prefix"]
    assert listed == ["checkpoints/*", "code/*", "datasets/*", "training/*", "weights/*"]
    assert condition(role, "cloudwatch:PutMetricData") == namespaces("TrainingJobs")


def test_an_endpoint_and_a_transform_job_may_do_this_and_nothing_else(stage):
    role = role_for(stage, *ENDPOINT)
    assert allowed(role) == {
        "s3:ListBucket": {BUCKET},
        "s3:GetObject": objects("batch/input"),
        **dict.fromkeys(("s3:PutObject", "s3:AbortMultipartUpload"), objects("batch/output")),
        **USE_KEY,
        **{action: {KEY} for action in ("kms:CreateGrant", "kms:DescribeKey")},
        **{action: {"<ExportsOutputFnGetAttImages2D38C313Arn6C6DDC6E>"} for action in PULL},
        **dict.fromkeys(WRITE_LOGS, log_groups(f"Endpoints/{stage.settings.endpoint_name}", "TransformJobs")),
        **WITHOUT_RESOURCES,
        "cloudwatch:DescribeAlarms": {f"{ALARMS}:{stage.settings.stack_name('inference')}-*"},
    }
    assert condition(role, "s3:ListBucket")["StringLike"] == {"s3:prefix": ["batch/input/*"]}
    assert condition(role, "kms:CreateGrant") == {"Bool": {"kms:GrantIsForAWSResource": "true"}}
    assert condition(role, "cloudwatch:PutMetricData") == namespaces("Endpoints", "TransformJobs")


def test_a_serverless_model_is_not_isolated_and_so_its_role_opens_nothing_but_its_own(synthesise, stages, artifact):
    stage = synthesise(stages["serverless"].settings, artifact)
    assert stage.properties("inference", "AWS::SageMaker::Model")["EnableNetworkIsolation"] is False
    (read,) = allowed(role_for(stage, *ENDPOINT)).pop("s3:GetObject")
    assert "*" not in read and read.endswith(".gz")
    assert allowed(role_for(stages["serverless"], *ENDPOINT)) == {
        **{action: {"<ExportsOutputFnGetAttImages2D38C313Arn6C6DDC6E>"} for action in PULL},
        **dict.fromkeys(WRITE_LOGS, log_groups("Endpoints/kennel-serverless-serverless")),
        **WITHOUT_RESOURCES,
    }


@pytest.mark.parametrize(("kind", "description"), ROLES)
def test_a_role_opens_objects_with_the_key_through_s3_only(stage, kind, description):
    role = role_for(stage, kind, description)
    for action in ("kms:Decrypt", "kms:GenerateDataKey"):
        assert text(condition(role, action)["StringEquals"]["kms:ViaService"]) == "s3.<AWS::Region>.<AWS::URLSuffix>"
    # Without a condition: SageMaker asks for it when a job names the key, and may not go through S3.
    assert condition(role, "kms:Encrypt") == {}


def test_no_role_trusts_a_bucket_of_another_account(synthesise, stages, artifact):
    stage = synthesise(replace(stages["dev"].settings, notebook=NotebookSettings()), artifact)
    found = [
        statement
        for _, _, resource in stage.all_resources()
        if resource["Type"] == "AWS::IAM::Role"
        for statement in statements(resource)
        if any(action.startswith("s3:") for action in statement["Action"])
    ]
    assert len(found) > 10
    for statement in found:
        account = statement["Condition"]["StringEquals"]["aws:ResourceAccount"]
        assert account == {"Ref": "AWS::AccountId"}, statement


def deployed_role(stage: SynthesisedStage) -> tuple[str, dict]:
    name = stage.properties("inference", "AWS::SageMaker::Model")["ExecutionRoleArn"]["Fn::GetAtt"][0]
    return name, stage.template("inference")["Resources"][name]


def test_a_model_reads_its_own_artifact_and_the_next_one_has_a_role_of_its_own(synthesise, stages, tmp_path):
    def deploy(content: bytes, name: str = "a.tar.gz") -> tuple[str, str]:
        role_id, role = deployed_role(synthesise(stages["dev"].settings, write_artifact(tmp_path / name, content)))
        (arn,) = allowed(role)["s3:GetObject"] - objects("batch/input")
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


def test_no_role_has_a_managed_policy_or_permissions_of_a_separate_resource(stage):
    roles = [resource for _, _, resource in stage.all_resources() if resource["Type"] == "AWS::IAM::Role"]
    assert len(roles) == 6 + stage.settings.cost_guard.stops_something
    assert not [role for role in roles if "ManagedPolicyArns" in role["Properties"]]
    assert not [r for _, _, r in stage.all_resources() if r["Type"] in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")]
