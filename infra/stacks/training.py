"""What trainings need; disposable."""

from typing import Any

from aws_cdk import CfnOutput, Fn, Stack
from constructs import Construct

from infra.constructs.data_bucket import DataBucket
from infra.constructs.inline_role import STREAMS, TRAINING_LOG_GROUP, InlineRole
from infra.constructs.notebook_instance import NotebookInstance
from infra.constructs.registry_image import training_image
from infra.constructs.training_instance import TrainingInstance
from infra.settings import Settings


class TrainingStack(Stack):
    """The role of the training jobs, and what EC2 trainings and a notebook need. The command line starts trainings."""

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: Settings, data: DataBucket, **kwargs: Any
    ) -> None:
        super().__init__(scope, construct_id, **kwargs)
        role = InlineRole(self, "Role", service="sagemaker", description="SageMaker training jobs")
        data.grant_training_job(role)
        training_image(self, settings.training.image).grant_pull(role)
        role.allow_telemetry({TRAINING_LOG_GROUP: STREAMS})
        CfnOutput(self, "TrainingRoleArn", value=role.role_arn)
        if settings.training.ec2:
            instance = TrainingInstance(
                self,
                "Instance",
                settings=settings.training.ec2,
                data=data,
                log_days=settings.training.log_retention_days,
                retain_logs=settings.storage.retain,
                tags={"project": settings.project, "stage": settings.stage},
            )
            CfnOutput(self, "TrainingLaunchTemplateId", value=instance.launch_template.ref)
            CfnOutput(self, "TrainingSubnetIds", value=Fn.join(",", instance.network.subnet_ids))
            CfnOutput(self, "TrainingInstanceLogGroup", value=instance.log_group.log_group_name)
        if settings.notebook:
            notebook = NotebookInstance(self, "Notebook", settings=settings, data=data, training_role=role)
            CfnOutput(self, "NotebookInstanceName", value=notebook.instance.attr_notebook_instance_name)
