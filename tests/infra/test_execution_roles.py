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
    ("inference", "Classifier function"),
]


@pytest.fixture
def training_role(stage: SynthesisedStage) -> dict:
    return role_for(stage, "training", "SageMaker training jobs")


@pytest.fixture
def model_role(stage: SynthesisedStage) -> dict:
    return role_for(stage, *ROLES[1])


def test_training_reads_data_code_weights_and_checkpoints_and_no_other_object(training_role):
    assert allowed(training_role)["s3:GetObject"] == {
        f"{BUCKET}/{p}/*" for p in ("datasets", "code", "weights", "checkpoints")
    }


def test_training_writes_outputs_and_checkpoints_and_no_other_object(training_role):
    for action in ("s3:PutObject", "s3:AbortMultipartUpload"):
        assert allowed(training_role)[action] == {f"{BUCKET}/{p}/*" for p in ("training", "checkpoints")}


def test_training_lists_only_its_prefixes(training_role):
    assert allowed(training_role)["s3:ListBucket"] == {BUCKET}
    prefixes = condition(training_role, "s3:ListBucket")["StringLike"]["s3:prefix"]
    assert prefixes == ["checkpoints/*", "code/*", "datasets/*", "training/*", "weights/*"]


def test_training_has_no_other_permission_on_s3(training_role):
    actions = {action for action in allowed(training_role) if action.startswith("s3:")}
    assert actions == {"s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListBucket", "s3:DeleteObject"}


def test_training_deletes_checkpoints_and_nothing_else(training_role):
    assert allowed(training_role)["s3:DeleteObject"] == {f"{BUCKET}/checkpoints/*"}


@pytest.mark.parametrize(("kind", "description"), ROLES[:2])
def test_role_opens_objects_with_the_key_only_through_s3(stage, kind, description):
    role = role_for(stage, kind, description)
    for action in ("kms:Decrypt", "kms:GenerateDataKey"):
        assert allowed(role)[action] == {KEY}
        via = condition(role, action)["StringEquals"]["kms:ViaService"]
        assert text(via) == "s3.<AWS::Region>.<AWS::URLSuffix>"


@pytest.mark.parametrize(("kind", "description"), ROLES[:2])
def test_what_a_job_puts_out_can_be_under_the_key(stage, kind, description):
    # Without a condition: SageMaker asks for it when a job names the key, and may not go through S3.
    role = role_for(stage, kind, description)
    assert allowed(role)["kms:Encrypt"] == {KEY}
    assert condition(role, "kms:Encrypt") == {}


def test_training_uses_the_key_for_nothing_else(training_role):
    actions = {action for action in allowed(training_role) if action.startswith("kms:")}
    assert actions == {"kms:Decrypt", "kms:GenerateDataKey", "kms:Encrypt"}


def test_endpoint_passes_the_key_on_to_volumes_only(model_role):
    actions = {action for action in allowed(model_role) if action.startswith("kms:")}
    assert actions == {"kms:Decrypt", "kms:GenerateDataKey", "kms:Encrypt", "kms:CreateGrant", "kms:DescribeKey"}
    assert condition(model_role, "kms:CreateGrant") == {"Bool": {"kms:GrantIsForAWSResource": "true"}}


def test_transform_jobs_read_their_input_and_write_their_output_and_nothing_else(model_role):
    s3 = {action: arns for action, arns in allowed(model_role).items() if action.startswith("s3:")}
    assert s3 == {
        "s3:ListBucket": {BUCKET},
        "s3:GetObject": {f"{BUCKET}/batch/input/*"},
        "s3:PutObject": {f"{BUCKET}/batch/output/*"},
        "s3:AbortMultipartUpload": {f"{BUCKET}/batch/output/*"},
    }
    assert condition(model_role, "s3:ListBucket")["StringLike"] == {"s3:prefix": ["batch/input/*"]}


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


def test_training_pulls_its_own_image_repository_only(training_role):
    table = allowed(training_role)
    pulls = {action: arns for action, arns in table.items() if action.startswith("ecr:") and "Token" not in action}
    assert set(pulls) == {"ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}
    for arns in pulls.values():
        account = "<ImageAccounts.<AWS::Region>.id>"
        assert arns == {f"arn:<AWS::Partition>:ecr:<AWS::Region>:{account}:repository/pytorch"}


@pytest.mark.parametrize(
    ("kind", "description", "groups"),
    [(*ROLES[0], ["TrainingJobs"]), (*ROLES[1], ["Endpoints/*", "TransformJobs"])],
)
def test_role_writes_only_sagemakers_log_groups(stage, kind, description, groups):
    table = allowed(role_for(stage, kind, description))
    prefix = "arn:<AWS::Partition>:logs:<AWS::Region>:<AWS::AccountId>:log-group:/aws/sagemaker/"
    logs = {action: arns for action, arns in table.items() if action.startswith("logs:")}
    assert not any("Delete" in action or "*" in action for action in logs)
    for arns in logs.values():
        assert arns == {f"{prefix}{group}{streams}" for group in groups for streams in ("", ":log-stream:*")}


@pytest.mark.parametrize(
    ("kind", "description", "namespaces"),
    [
        (*ROLES[0], ["/aws/sagemaker/TrainingJobs"]),
        (*ROLES[1], ["/aws/sagemaker/Endpoints", "/aws/sagemaker/TransformJobs"]),
    ],
)
def test_role_publishes_metrics_in_sagemakers_namespaces(stage, kind, description, namespaces):
    role = role_for(stage, kind, description)
    assert condition(role, "cloudwatch:PutMetricData") == {"StringEquals": {"cloudwatch:namespace": namespaces}}


@pytest.mark.parametrize(("kind", "description"), ROLES[:2])
def test_sagemaker_assumes_the_role_for_this_account_only(stage, kind, description):
    trust = role_for(stage, kind, description)["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust == [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Condition": {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}},
        }
    ]


@pytest.mark.parametrize(("kind", "description"), ROLES)
def test_only_actions_without_resources_are_allowed_on_any(stage, kind, description):
    table = allowed(role_for(stage, kind, description))
    on_any = {action for action, resources in table.items() if "*" in resources}
    assert on_any <= {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}


@pytest.mark.parametrize(("kind", "description"), ROLES)
def test_no_action_is_a_wildcard(stage, kind, description):
    assert not [action for action in allowed(role_for(stage, kind, description)) if "*" in action]


def test_no_role_has_a_managed_policy_or_permissions_of_a_separate_resource(stage):
    roles = [resource for _, _, resource in stage.all_resources() if resource["Type"] == "AWS::IAM::Role"]
    assert len(roles) == len(ROLES) + 3  # those of the EC2 trainings and of the image's build have tests of their own
    assert not [role for role in roles if "ManagedPolicyArns" in role["Properties"]]
    assert not [r for _, _, r in stage.all_resources() if r["Type"] in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")]
