"""The roles of trainings, on SageMaker and on EC2, and of the endpoint. None can do another one's work.

All permissions are inline policies of the role resource itself. So whoever refers to the role cannot be created before
the role may do its work; as separate policy resources they would race with the model that needs them.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import cast

from aws_cdk import Aws, CfnResource, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.bucket_layout import (
    BATCH_INPUT,
    BATCH_OUTPUT,
    CHECKPOINTS,
    CODE,
    DATA_SETS,
    READABLE_PREFIXES,
    TRAINING_OUTPUT,
    TRAINING_PREFIXES,
    WRITABLE_PREFIXES,
)
from infra.constructs.policies import allow, allow_in_s3, policy

SESSION_CHANNELS = [
    f"ssmmessages:{action}{channel}" for action in ("Create", "Open") for channel in ("ControlChannel", "DataChannel")
]


class TrainingRole(iam.Role):
    """Lets a training job read data sets, code and weights, and write outputs and checkpoints; all in one bucket.

    SageMaker keeps the checkpoints in the bucket like those of the job, so what the job deletes is deleted there, too.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, bucket: s3.IBucket, key: kms.IKey, image_repository_arn: str
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            description="SageMaker training jobs",
            assumed_by=sagemaker(),
            inline_policies={
                "Data": training_data(bucket, key),
                "Checkpoints": policy(
                    allow_in_s3(["s3:DeleteObject"], [bucket.arn_for_objects(f"{CHECKPOINTS}/*")]),
                ),
                "Output": policy(encrypt_output(key)),
                "Image": _pull(image_repository_arn),
                "Telemetry": _telemetry("/aws/sagemaker/TrainingJobs"),
            },
        )


class TrainingInstanceRole(iam.Role):
    """Lets an EC2 instance do what a training job may do with the data, with a log group of its own.

    Parameters
    ----------
    program_arn
        The object that its user data fetches.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        bucket: s3.IBucket,
        key: kms.IKey,
        log_group: logs.ILogGroup,
        program_arn: str,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            description="EC2 training instances",
            assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
            inline_policies={
                "Data": training_data(bucket, key),
                "Program": policy(allow_in_s3(["s3:GetObject"], [program_arn])),
                # The group itself, and (CloudFormation's attribute ends in :*) its streams.
                "Log": policy(
                    allow(
                        ["logs:CreateLogStream", "logs:PutLogEvents"],
                        [_log_group_arn(log_group.log_group_name), log_group.log_group_arn],
                    )
                ),
                # What the agent needs for a shell without an open port, and no more of Systems Manager. IAM knows no
                # resources for the channels. Source: Systems Manager User Guide, "Verify or add instance permissions
                # for Session Manager".
                "SessionManager": policy(allow([*SESSION_CHANNELS, "ssm:UpdateInstanceInformation"], ["*"])),
            },
        )


class ModelRole(iam.Role):
    """Lets SageMaker fetch one model artifact and its image, and write logs.

    A transform job runs under the role of its model, so this one also reads pictures and writes answers below
    two prefixes of the data bucket. It is SageMaker that moves them: the container itself runs under network isolation
    and never sees these permissions.

    The permissions of a role never change, because the instances of the model before need theirs until a deployment has
    replaced them, or is rolled back to them: other permissions (of another artifact or image) are another role, and
    CloudFormation deletes the old one when it deletes the old model.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        artifact_arn: str | None,
        image_repository_arn: str,
        volume_key: kms.IKey | None,
        bucket: s3.IBucket,
        key: kms.IKey,
    ) -> None:
        policies = {
            "Image": _pull(image_repository_arn),
            # The first group is named after the endpoint, whose generated name is known only after this role.
            "Telemetry": _telemetry("/aws/sagemaker/Endpoints/*", "/aws/sagemaker/TransformJobs"),
            "Batch": policy(
                allow_in_s3(
                    ["s3:ListBucket"], [bucket.bucket_arn], {"StringLike": {"s3:prefix": [f"{BATCH_INPUT}/*"]}}
                ),
                allow_in_s3(["s3:GetObject"], [bucket.arn_for_objects(f"{BATCH_INPUT}/*")]),
                allow_in_s3(["s3:PutObject", "s3:AbortMultipartUpload"], [bucket.arn_for_objects(f"{BATCH_OUTPUT}/*")]),
                use_for_objects(key),
                encrypt_output(key),
            ),
        }
        if artifact_arn is not None:
            policies["Artifact"] = policy(allow_in_s3(["s3:GetObject"], [artifact_arn]))
        if volume_key is not None:
            policies["Volume"] = policy(
                # SageMaker hands the key on to the volumes of the instances by a grant.
                allow(["kms:CreateGrant"], [volume_key.key_arn], {"Bool": {"kms:GrantIsForAWSResource": "true"}}),
                allow(["kms:DescribeKey"], [volume_key.key_arn]),
            )
        super().__init__(
            scope,
            construct_id,
            description="SageMaker endpoint",
            assumed_by=sagemaker(),
            inline_policies=policies,
        )
        stack, resource = Stack.of(self), cast(CfnResource, self.node.default_child)
        permissions = json.dumps(stack.resolve(policies), sort_keys=True)
        digest = hashlib.sha256(permissions.encode()).hexdigest()[:8]
        resource.override_logical_id(f"{stack.get_logical_id(resource)}{digest}")


def sagemaker() -> iam.IPrincipal:
    """SageMaker, working for this account only: else another account could make it use our role (confused deputy)."""
    return iam.ServicePrincipal(
        "sagemaker.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}}
    )


def _pull(repository_arn: str) -> iam.PolicyDocument:
    """May pull from the image's repository, and from no other."""
    return policy(
        # A token for the registry, which IAM cannot scope; what it opens is decided by the next statement.
        allow(["ecr:GetAuthorizationToken"], ["*"]),
        allow(["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], [repository_arn]),
    )


def training_data(bucket: s3.IBucket, key: kms.IKey) -> iam.PolicyDocument:
    """May read data sets and code, read and write checkpoints, write outputs; all in one bucket."""
    return _objects(bucket, key, readable=READABLE_PREFIXES, writable=WRITABLE_PREFIXES)


def notebook_data(bucket: s3.IBucket, key: kms.IKey) -> iam.PolicyDocument:
    """May see everything that trainings read and leave, and put data sets and code into the bucket.

    Which model is a training's own, only the versions of what it has left tell.
    """
    document = _objects(bucket, key, readable=TRAINING_PREFIXES, writable=(DATA_SETS, CODE))
    document.add_statements(
        allow_in_s3(
            ["s3:ListBucketVersions"], [bucket.bucket_arn], {"StringLike": {"s3:prefix": [f"{TRAINING_OUTPUT}/*"]}}
        ),
        allow_in_s3(["s3:GetObjectVersion"], [bucket.arn_for_objects(f"{TRAINING_OUTPUT}/*")]),
    )
    return document


def _objects(
    bucket: s3.IBucket, key: kms.IKey, *, readable: Iterable[str], writable: Iterable[str]
) -> iam.PolicyDocument:
    return policy(
        allow_in_s3(
            ["s3:ListBucket"],
            [bucket.bucket_arn],
            {"StringLike": {"s3:prefix": [f"{prefix}/*" for prefix in TRAINING_PREFIXES]}},
        ),
        allow_in_s3(["s3:GetObject"], [bucket.arn_for_objects(f"{prefix}/*") for prefix in readable]),
        allow_in_s3(
            ["s3:PutObject", "s3:AbortMultipartUpload"],
            [bucket.arn_for_objects(f"{prefix}/*") for prefix in writable],
        ),
        use_for_objects(key),
    )


def use_for_objects(key: kms.IKey) -> iam.PolicyStatement:
    """May open objects of the bucket with the key, and nothing else: only S3 can use it on the role's behalf."""
    return allow(
        ["kms:Decrypt", "kms:GenerateDataKey"],
        [key.key_arn],
        {"StringEquals": {"kms:ViaService": f"s3.{Aws.REGION}.{Aws.URL_SUFFIX}"}},
    )


def encrypt_output(key: kms.IKey) -> iam.PolicyStatement:
    """May be told to encrypt what a job puts out with the key. Encrypting alone opens nothing with it.

    SageMaker asks for it whenever a job names the key (`KmsKeyId` of OutputDataConfig and TransformOutput), and AWS's
    page on execution roles gives it without a condition: SageMaker may use it other than through S3.
    """
    return allow(["kms:Encrypt"], [key.key_arn])


def _telemetry(*log_groups: str) -> iam.PolicyDocument:
    """May write to the log groups and publish the metrics of the same names."""
    arns = [_log_group_arn(group) for group in log_groups]
    namespaces = [group.removesuffix("/*") for group in log_groups]
    return policy(
        allow(
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [resource for arn in arns for resource in (arn, f"{arn}:log-stream:*")],
        ),
        # PutMetricData knows no resources; the condition takes their place.
        allow(
            ["cloudwatch:PutMetricData"],
            ["*"],
            {"StringEquals": {"cloudwatch:namespace": namespaces}},
        ),
    )


def _log_group_arn(name: str) -> str:
    return f"arn:{Aws.PARTITION}:logs:{Aws.REGION}:{Aws.ACCOUNT_ID}:log-group:{name}"
