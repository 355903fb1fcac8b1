"""The role of SageMaker's training jobs."""

from constructs import Construct

from infra.constructs.data_bucket import DataBucket
from infra.constructs.inline_role import InlineRole
from infra.constructs.registry_image import RegistryImage

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
STREAMS = "SageMaker names the log streams after the jobs, in the one group that it uses for all of them."


class TrainingRole(InlineRole):
    """Lets a training job read data sets, code and weights, and write outputs and checkpoints; all in one bucket."""

    def __init__(self, scope: Construct, construct_id: str, *, data: DataBucket, image: RegistryImage) -> None:
        super().__init__(scope, construct_id, service="sagemaker", description="SageMaker training jobs")
        data.grant_training_job(self)
        image.grant_pull(self)
        self.allow_telemetry({LOG_GROUP: STREAMS})
