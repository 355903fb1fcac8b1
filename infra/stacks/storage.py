"""What outlives everything else."""

from typing import Any

from aws_cdk import CfnOutput, RemovalPolicy, Stack
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.constructs.audit_role import audit_role
from infra.constructs.data_bucket import DataBucket
from infra.constructs.inline_role import arn_here
from infra.constructs.registry_image import image_repository
from infra.settings import Settings
from infra.tables.serving import CaptureSettings


class StorageStack(Stack):
    """The data bucket and its key, the repository of the serving image, and the registry of the models."""

    def __init__(self, scope: Construct, construct_id: str, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(scope, construct_id, termination_protection=settings.storage.retain, **kwargs)
        capture = settings.serving.capture or CaptureSettings()
        self.data = DataBucket(self, "Data", settings=settings.storage, capture_days=capture.days)
        self.data.let_alarms_publish(arn_here("sns", f"{settings.stack_name('inference')}-*"))
        # Here and not beside the endpoint: an image can be pushed before there is one.
        self.images = image_repository(self, "Images")
        # Here, too: to go back to an earlier model must be possible when the endpoint's stack is gone.
        models = sagemaker.CfnModelPackageGroup(
            self,
            "Models",
            model_package_group_name=f"{settings.project}-{settings.stage}",  # CloudFormation makes up no name
            model_package_group_description="The packaged models of the stage",
        )
        models.apply_removal_policy(RemovalPolicy.RETAIN if settings.storage.retain else RemovalPolicy.DESTROY)
        CfnOutput(self, "DataBucketName", value=self.data.bucket.bucket_name)
        CfnOutput(self, "DataKeyArn", value=self.data.key.key_arn)
        CfnOutput(self, "ImageRepositoryUri", value=self.images.repository_uri)
        CfnOutput(self, "ModelPackageGroupName", value=models.model_package_group_name)
        if settings.audit:
            role = audit_role(self, "Audit", trusted=settings.audit.trusted)
            CfnOutput(self, "AuditRoleArn", value=role.role_arn)
        # All that other stacks may ever import, whether or not the present settings do: an export that came and went
        # with them would make a deployment impossible, because CloudFormation does not take one away that is in use.
        data, images = self.data, self.images
        exports = (data.bucket.bucket_name, data.bucket.bucket_arn, data.key.key_arn)
        for value in (*exports, images.repository_name, images.repository_arn):
            self.export_value(value)
