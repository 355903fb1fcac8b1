"""What SageMaker may do for us, and what not."""

from dataclasses import replace

import pytest
from templates import SynthesisedStage, allowed, condition, role_for, statements, text, write_artifact

from infra.settings import Ec2TrainingSettings, NotebookSettings

BUCKET = "<ExportsOutputFnGetAttDataBucketE6B0FAA8Arn3FF3A9FF>"
KEY = "<ExportsOutputFnGetAttDataKey5F086070Arn0ECF9F84>"
ROLES = [
    ("training", "SageMaker training jobs"),
    ("inference", "SageMaker endpoint"),
]


LOGS = "arn:<AWS::Partition>:logs:<AWS::Region>:<AWS::AccountId>:log-group:/aws/sagemaker"
WRITE_LOGS = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")
PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
WITHOUT_RESOURCES = {action: {"*"} for action in ("ecr:GetAuthorizationToken", "cloudwatch:PutMetricData")}
USE_KEY = {action: {KEY} for action in ("kms:Decrypt", "kms:GenerateDataKey", "kms:Encrypt")}


def objects(*prefixes: str) -> set[str]:
    return {f"{BUCKET}/{prefix}/*" for prefix in prefixes}


def log_groups(*names: str) -> set[str]:
    return {f"{LOGS}/{name}{streams}" for name in names for streams in ("", ":log-stream:*")}


def test_a_training_job_may_do_this_and_nothing_else(stage):
    repository = "arn:<AWS::Partition>:ecr:<AWS::Region>:<ImageAccounts.<AWS::Region>.id>:repository/pytorch"
    role = role_for(stage, *ROLES[0])
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
    namespaces = {"cloudwatch:namespace": ["/aws/sagemaker/TrainingJobs"]}
    assert condition(role, "cloudwatch:PutMetricData") == {"StringEquals": namespaces}


def test_an_endpoint_and_a_transform_job_may_do_this_and_nothing_else(stage):
    repository = "<ExportsOutputFnGetAttImages2D38C313Arn"
    role = role_for(stage, *ROLES[1])
    table = allowed(role)
    assert all(str(arn).startswith(repository) for action in PULL for arn in table.pop(action))
    assert table == {
        "s3:ListBucket": {BUCKET},
        "s3:GetObject": objects("batch/input"),
        **dict.fromkeys(("s3:PutObject", "s3:AbortMultipartUpload"), objects("batch/output")),
        **USE_KEY,
        **{action: {KEY} for action in ("kms:CreateGrant", "kms:DescribeKey")},
        **dict.fromkeys(WRITE_LOGS, log_groups("Endpoints/*", "TransformJobs")),
        **WITHOUT_RESOURCES,
    }
    assert condition(role, "s3:ListBucket")["StringLike"] == {"s3:prefix": ["batch/input/*"]}
    assert condition(role, "kms:CreateGrant") == {"Bool": {"kms:GrantIsForAWSResource": "true"}}
    namespaces = {"cloudwatch:namespace": ["/aws/sagemaker/Endpoints", "/aws/sagemaker/TransformJobs"]}
    assert condition(role, "cloudwatch:PutMetricData") == {"StringEquals": namespaces}


@pytest.mark.parametrize(("kind", "description"), ROLES[:2])
def test_a_role_opens_objects_with_the_key_through_s3_only(stage, kind, description):
    role = role_for(stage, kind, description)
    for action in ("kms:Decrypt", "kms:GenerateDataKey"):
        assert text(condition(role, action)["StringEquals"]["kms:ViaService"]) == "s3.<AWS::Region>.<AWS::URLSuffix>"
    # Without a condition: SageMaker asks for it when a job names the key, and may not go through S3.
    assert condition(role, "kms:Encrypt") == {}


def test_endpoint_reads_its_own_artifact_and_no_other_object(synthesise, artifact, stages):
    role = role_for(synthesise(stages["dev"].settings, artifact=artifact), *ROLES[1])
    (artifact_arn,) = allowed(role)["s3:GetObject"] - {f"{BUCKET}/batch/input/*"}
    assert artifact_arn.startswith("arn:<AWS::Partition>:s3:::cdk-hnb659fds-assets-")
    assert artifact_arn.endswith(".gz")
    assert "*" not in artifact_arn


def test_no_role_trusts_a_bucket_of_another_account(synthesise, stages, artifact):
    settings = stages["dev"].settings
    settings = replace(
        settings,
        training=replace(settings.training, ec2=Ec2TrainingSettings()),
        notebook=NotebookSettings(),
    )
    found = [
        statement
        for _, _, resource in synthesise(settings, artifact).all_resources()
        if resource["Type"] == "AWS::IAM::Role"
        for statement in statements(resource)
        if any(action.startswith("s3:") for action in statement["Action"])
    ]
    assert len(found) > 10
    for statement in found:
        account = statement["Condition"]["StringEquals"]["aws:ResourceAccount"]
        assert account == {"Ref": "AWS::AccountId"}, statement


def deployed_role(stage: SynthesisedStage) -> tuple[str, dict]:
    """Logical id and resource of the role that the model has."""
    name = stage.properties("inference", "AWS::SageMaker::Model")["ExecutionRoleArn"]["Fn::GetAtt"][0]
    return name, stage.template("inference")["Resources"][name]


def test_another_artifact_is_another_role_so_that_the_model_before_keeps_its_own(synthesise, stages, tmp_path):
    def deploy(content: bytes, name: str = "a.tar.gz") -> tuple[str, set[str]]:
        role_id, role = deployed_role(synthesise(stages["dev"].settings, write_artifact(tmp_path / name, content)))
        return role_id, {arn for arn in allowed(role)["s3:GetObject"] if "assets" in arn}

    (first, first_arns), (second, second_arns) = deploy(b"one"), deploy(b"two")
    assert first != second
    assert len(first_arns) == len(second_arns) == 1
    assert first_arns != second_arns
    assert deploy(b"one", "b.tar.gz") == (first, first_arns)


def test_another_image_is_another_role(synthesise, stages):
    settings = stages["dev"].settings

    def role_of(image: str) -> str:
        return deployed_role(synthesise(replace(settings, serving=replace(settings.serving, image=image))))[0]

    address = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
    roles = {role_of(image) for image in ("own", f"{address}/one:1", f"{address}/two:1")}
    assert len(roles) == 3


def test_a_models_role_follows_from_what_it_may_do_and_nothing_else(synthesise, stages):
    settings = stages["dev"].settings
    other = replace(settings, serving=replace(settings.serving, initial_instances=2, startup_timeout_seconds=900))
    assert deployed_role(synthesise(other)) == deployed_role(stages["dev"])


def test_no_role_has_a_managed_policy_or_permissions_of_a_separate_resource(stage):
    roles = [resource for _, _, resource in stage.all_resources() if resource["Type"] == "AWS::IAM::Role"]
    assert len(roles) == 6
    assert not [role for role in roles if "ManagedPolicyArns" in role["Properties"]]
    assert not [r for _, _, r in stage.all_resources() if r["Type"] in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")]
