"""What outlives everything else."""

from typing import Any

from aws_cdk import CfnOutput, Stack
from constructs import Construct

from infra.constructs.data_bucket import DataBucket
from infra.constructs.registry_image import image_repository
from infra.settings import Settings


class StorageStack(Stack):
    """The data bucket and its key, and the repository of the serving image: what the other stacks are wired to."""

    def __init__(self, scope: Construct, construct_id: str, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(scope, construct_id, termination_protection=settings.storage.retain, **kwargs)
        self.data = DataBucket(self, "Data", settings=settings.storage)
        # Here and not beside the endpoint: an image can be pushed before there is one.
        self.images = image_repository(self, "Images")
        CfnOutput(self, "DataBucketName", value=self.data.bucket.bucket_name)
        CfnOutput(self, "DataKeyArn", value=self.data.key.key_arn)
        CfnOutput(self, "ImageRepositoryUri", value=self.images.repository_uri)
        # All that other stacks may ever import, whether or not the present settings do: an export that came and went
        # with them would make a deployment impossible, because CloudFormation does not take one away that is in use.
        data, images = self.data, self.images
        exports = (data.bucket.bucket_name, data.bucket.bucket_arn, data.key.key_arn)
        for value in (*exports, images.repository_name, images.repository_arn):
            self.export_value(value)
