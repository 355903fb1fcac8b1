"""The bucket of data sets, code and training outputs, its key and its access logs."""

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.bucket_layout import CHECKPOINTS, TRAINING_OUTPUT
from infra.settings import StorageSettings

# S3 bills the parts of an upload that was never completed until somebody removes them.
ABORT_INCOMPLETE_UPLOADS = Duration.days(7)
# The shortest and the longest waiting period that KMS offers before a deleted key is gone for good.
KEY_DELETION_WINDOW = {False: Duration.days(7), True: Duration.days(30)}


class DataBucket(Construct):
    """An encrypted, versioned, private bucket that only takes TLS and writes access logs.

    Attributes
    ----------
    bucket, key
        The bucket and the customer-managed key that everything in it is encrypted with.
    """

    def __init__(self, scope: Construct, construct_id: str, *, settings: StorageSettings) -> None:
        super().__init__(scope, construct_id)
        removal_policy = RemovalPolicy.RETAIN if settings.retain else RemovalPolicy.DESTROY
        self.key = kms.Key(
            self,
            "Key",
            description="Data sets, training outputs and endpoint volumes",
            enable_key_rotation=True,
            pending_window=KEY_DELETION_WINDOW[settings.retain],
            removal_policy=removal_policy,
        )
        access_logs = s3.Bucket(
            self,
            "AccessLogs",
            # Log delivery cannot write to a bucket with a customer-managed default key (S3 user guide).
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="expire-logs",
                    expiration=Duration.days(settings.access_log_days),
                    abort_incomplete_multipart_upload_after=ABORT_INCOMPLETE_UPLOADS,
                )
            ],
            removal_policy=removal_policy,
        )
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key,
            # One KMS call per bucket and hour in place of one per object: a data set is thousands of small objects.
            bucket_key_enabled=True,
            versioned=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            server_access_logs_bucket=access_logs,
            server_access_logs_prefix="data/",
            lifecycle_rules=_lifecycle_rules(settings),
            removal_policy=removal_policy,
        )


def _lifecycle_rules(settings: StorageSettings) -> list[s3.LifecycleRule]:
    rules = [
        s3.LifecycleRule(
            id="clean-up",
            noncurrent_version_expiration=Duration.days(settings.noncurrent_version_days),
            expired_object_delete_marker=True,
            abort_incomplete_multipart_upload_after=ABORT_INCOMPLETE_UPLOADS,
        ),
        # Every epoch replaces them, and a version that a training has replaced or deleted is of no use.
        s3.LifecycleRule(
            id="expire-checkpoints",
            prefix=f"{CHECKPOINTS}/",
            expiration=Duration.days(settings.checkpoint_days),
            noncurrent_version_expiration=Duration.days(1),
        ),
    ]
    if settings.archive_training_outputs_after_days is not None:
        rules.append(
            s3.LifecycleRule(
                id="archive-training-outputs",
                prefix=f"{TRAINING_OUTPUT}/",
                transitions=[
                    s3.Transition(
                        storage_class=s3.StorageClass.GLACIER_INSTANT_RETRIEVAL,
                        transition_after=Duration.days(settings.archive_training_outputs_after_days),
                    )
                ],
            )
        )
    return rules
