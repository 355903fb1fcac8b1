"""The bucket of data sets, code and training outputs, its key and its access logs; and who may do what with them."""

from collections.abc import Iterable
from typing import Any

from aws_cdk import Aws, Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra import bucket_layout as layout
from infra.constructs.inline_role import InlineRole
from infra.settings import StorageSettings

# S3 bills the parts of an upload that was never completed until somebody removes them.
ABORT_INCOMPLETE_UPLOADS = Duration.days(7)
PUT = ["s3:PutObject", "s3:AbortMultipartUpload"]


class DataBucket(Construct):
    """A versioned, private bucket, encrypted with a key of its own, that only takes TLS and writes access logs."""

    def __init__(self, scope: Construct, construct_id: str, *, settings: StorageSettings, capture_days: int) -> None:
        super().__init__(scope, construct_id)
        removal_policy = RemovalPolicy.RETAIN if settings.retain else RemovalPolicy.DESTROY
        self.key = kms.Key(
            self,
            "Key",
            description="Data sets, training outputs, endpoint volumes and alarms",
            enable_key_rotation=True,
            # The shortest and the longest time that KMS offers before a deleted key is gone for good.
            pending_window=Duration.days(30 if settings.retain else 7),
            removal_policy=removal_policy,
        )
        private: dict[str, Any] = {
            "block_public_access": s3.BlockPublicAccess.BLOCK_ALL,
            "object_ownership": s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            "enforce_ssl": True,
            "minimum_tls_version": 1.2,
            "removal_policy": removal_policy,
        }
        access_logs = s3.Bucket(
            self,
            "AccessLogs",
            # Log delivery cannot write to a bucket with a customer-managed default key (S3 user guide).
            encryption=s3.BucketEncryption.S3_MANAGED,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="expire-logs",
                    expiration=Duration.days(settings.access_log_days),
                    abort_incomplete_multipart_upload_after=ABORT_INCOMPLETE_UPLOADS,
                )
            ],
            **private,
        )
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key,
            # One KMS call per bucket and hour in place of one per object: a data set is thousands of small objects.
            bucket_key_enabled=True,
            versioned=True,
            server_access_logs_bucket=access_logs,
            server_access_logs_prefix="data/",
            lifecycle_rules=_lifecycle_rules(settings, capture_days),
            **private,
        )

    def grant_training(self, role: InlineRole) -> None:
        """Allow to read data sets, code and weights, and to write outputs and checkpoints."""
        because = "A training names its own objects below its prefixes; the rest of the bucket stays closed."
        self._grant_objects(role, because, readable=layout.READABLE_PREFIXES, writable=layout.WRITABLE_PREFIXES)

    def grant_training_job(self, role: InlineRole) -> None:
        """Allow what a training job of SageMaker needs: checkpoints that it deletes are deleted here, too."""
        self.grant_training(role)
        self.grant_volume(role)
        role.allow_in_s3("Checkpoints", ["s3:DeleteObject"], self._objects([layout.CHECKPOINTS]))
        self._grant_encrypting(role, "Output")

    def grant_notebook(self, role: InlineRole) -> None:
        """Allow to see all that trainings read and leave, and its versions, and to put data sets and code there."""
        because = "Its user names jobs and data sets; the prefix is this stage's alone."
        self._grant_objects(role, because, readable=layout.TRAINING_PREFIXES, writable=(layout.DATA_SETS, layout.CODE))
        self._grant_listing(role, "Data", "s3:ListBucketVersions", [layout.TRAINING_OUTPUT])
        role.allow_in_s3("Data", ["s3:GetObjectVersion"], self._objects([layout.TRAINING_OUTPUT]))

    def grant_batch(self, role: InlineRole) -> None:
        """Allow what a transform job does under its model's role: read images and write answers.

        It is SageMaker that moves them: the container runs under network isolation and never sees these permissions.
        """
        self._grant_listing(role, "Batch", "s3:ListBucket", [layout.BATCH_INPUT])
        role.allow_in_s3("Batch", ["s3:GetObject"], self._objects([layout.BATCH_INPUT]))
        role.allow_in_s3("Batch", PUT, self._objects([layout.BATCH_OUTPUT]))
        self._grant_key(role, "Batch")
        self._grant_encrypting(role, "Batch")
        because = "A transform job reads images and writes answers of any name below these; the rest stays closed."
        self._acknowledge(role, because, [layout.BATCH_INPUT, layout.BATCH_OUTPUT])

    def grant_capture(self, role: InlineRole) -> None:
        """Allow SageMaker to write what it captures of an endpoint's requests, and to encrypt it."""
        role.allow_in_s3("Capture", PUT, self._objects([layout.CAPTURED]))
        self._grant_key(role, "Capture")
        because = "SageMaker names what it captures after endpoint, variant and time; the rest stays closed."
        self._acknowledge(role, because, [layout.CAPTURED])

    def let_alarms_publish(self, topics: str) -> None:
        """Allow alarms and budgets of this account to publish to topics (an ARN with wildcards) that the key encrypts.

        Sources: SNS guide, "Enable compatibility between event sources from AWS services and encrypted topics"; Cost
        Management guide, "Creating an Amazon SNS topic for budget notifications".
        """
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal(f"{service}.amazonaws.com") for service in ("budgets", "cloudwatch")],
                actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                resources=["*"],
                conditions={
                    "StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID},
                    # SNS encrypts a message for its topic, and nothing else of the key is of this context.
                    "ArnLike": {"kms:EncryptionContext:aws:sns:topicArn": topics},
                },
            )
        )

    def grant_volume(self, role: InlineRole) -> None:
        """Allow SageMaker to encrypt the volumes of instances with the key, to which it hands it on by a grant."""
        key = [self.key.key_arn]
        role.allow("Volume", ["kms:CreateGrant"], key, {"Bool": {"kms:GrantIsForAWSResource": "true"}})
        role.allow("Volume", ["kms:DescribeKey"], key)

    def _grant_objects(
        self, role: InlineRole, because: str, *, readable: Iterable[str], writable: Iterable[str]
    ) -> None:
        self._grant_listing(role, "Data", "s3:ListBucket", layout.TRAINING_PREFIXES)
        role.allow_in_s3("Data", ["s3:GetObject"], self._objects(readable))
        role.allow_in_s3("Data", PUT, self._objects(writable))
        self._grant_key(role, "Data")
        self._acknowledge(role, because, layout.TRAINING_PREFIXES)

    def _grant_listing(self, role: InlineRole, policy: str, action: str, prefixes: Iterable[str]) -> None:
        condition = {"StringLike": {"s3:prefix": [f"{prefix}/*" for prefix in prefixes]}}
        role.allow_in_s3(policy, [action], [self.bucket.bucket_arn], condition)

    def _grant_key(self, role: InlineRole, policy: str) -> None:
        """Allow to open objects of the bucket, and nothing else: only S3 can use the key on the role's behalf."""
        condition = {"StringEquals": {"kms:ViaService": f"s3.{Aws.REGION}.{Aws.URL_SUFFIX}"}}
        role.allow(policy, ["kms:Decrypt", "kms:GenerateDataKey"], [self.key.key_arn], condition)

    def _grant_encrypting(self, role: InlineRole, policy: str) -> None:
        """Allow to be told to encrypt what a job puts out with the key. Encrypting alone opens nothing with it.

        SageMaker asks for it whenever a job names the key (`KmsKeyId` of OutputDataConfig and TransformOutput), and
        AWS's page on execution roles gives it without a condition: SageMaker may use it other than through S3.
        """
        role.allow(policy, ["kms:Encrypt"], [self.key.key_arn])

    def _objects(self, prefixes: Iterable[str]) -> list[str]:
        return [self.bucket.arn_for_objects(f"{prefix}/*") for prefix in prefixes]

    def _acknowledge(self, role: InlineRole, because: str, prefixes: Iterable[str]) -> None:
        imported = self.bucket.stack.export_value(self.bucket.bucket_arn)  # as the role's own stack refers to it
        role.acknowledge_wildcards(because, [f"{imported}/{prefix}/*" for prefix in prefixes])


def _lifecycle_rules(settings: StorageSettings, capture_days: int) -> list[s3.LifecycleRule]:
    rules = [
        s3.LifecycleRule(
            id="clean-up",
            noncurrent_version_expiration=Duration.days(settings.noncurrent_version_days),
            expired_object_delete_marker=True,
            abort_incomplete_multipart_upload_after=ABORT_INCOMPLETE_UPLOADS,
        )
    ]
    # Every epoch replaces checkpoints, and old versions are of no use. What was captured goes also while capturing is
    # off: it must not stay for good.
    for prefix, days in ((layout.CAPTURED, capture_days), (layout.CHECKPOINTS, settings.checkpoint_days)):
        rules.append(
            s3.LifecycleRule(
                id=f"expire-{prefix}",
                prefix=f"{prefix}/",
                expiration=Duration.days(days),
                noncurrent_version_expiration=Duration.days(1),
            )
        )
    if settings.archive_training_outputs_after_days is not None:
        archive = s3.Transition(
            storage_class=s3.StorageClass.GLACIER_INSTANT_RETRIEVAL,
            transition_after=Duration.days(settings.archive_training_outputs_after_days),
        )
        rules.append(
            s3.LifecycleRule(id="archive-training-outputs", prefix=f"{layout.TRAINING_OUTPUT}/", transitions=[archive])
        )
    return rules
