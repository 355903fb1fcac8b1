"""What training jobs need; disposable."""

from typing import Any

from aws_cdk import Aws, CfnOutput, Stack
from constructs import Construct

from infra.constructs.data_bucket import DataBucket
from infra.constructs.execution_roles import TrainingRole
from infra.settings import Settings


class TrainingStack(Stack):
    """The role of the training jobs. The jobs themselves are started by the command line."""

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: Settings, data: DataBucket, **kwargs: Any
    ) -> None:
        super().__init__(scope, construct_id, **kwargs)
        role = TrainingRole(
            self,
            "Role",
            bucket=data.bucket,
            key=data.key,
            image_repository_arn=settings.training.image.repository_arn(Aws.REGION, Aws.PARTITION),
        )
        CfnOutput(self, "TrainingRoleArn", value=role.role_arn)
