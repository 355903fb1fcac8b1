"""What answers; redeployed with every model."""

from pathlib import Path
from typing import Any

from aws_cdk import CfnOutput, Stack
from aws_cdk import aws_ecr as ecr
from constructs import Construct

from infra.constructs.classifier_function import ClassifierFunction
from infra.constructs.data_bucket import DataBucket
from infra.constructs.endpoint_scaling import EndpointScaling
from infra.constructs.realtime_endpoint import RealtimeEndpoint
from infra.constructs.registry_image import serving_image
from infra.settings import Settings


class InferenceStack(Stack):
    """The endpoint, its scaling, and the function in front of it."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        data: DataBucket,
        images: ecr.IRepository,
        artifact: Path,
        **kwargs: Any,
    ) -> None:
        super().__init__(scope, construct_id, **kwargs)
        endpoint = RealtimeEndpoint(
            self,
            "Endpoint",
            settings=settings.serving,
            image=serving_image(self, settings.serving, images),
            artifact=artifact,
            data=data,
            metrics_namespace=settings.project.capitalize(),
        )
        if settings.serving.scaling:
            EndpointScaling(self, "Scaling", endpoint=endpoint, settings=settings.serving.scaling)
        classifier = ClassifierFunction(
            self,
            "Classifier",
            settings=settings.function,
            endpoint_name=endpoint.endpoint.attr_endpoint_name,
            metrics_namespace=settings.project.capitalize(),
            retain_logs=settings.storage.retain,
        )
        endpoint.grant_invoke(classifier)
        CfnOutput(self, "EndpointName", value=endpoint.endpoint.attr_endpoint_name)
        CfnOutput(self, "FunctionUrl", value=classifier.url.url)
        CfnOutput(self, "FunctionName", value=classifier.function.function_name)
        CfnOutput(self, "FunctionAliasArn", value=classifier.alias.function_arn)
