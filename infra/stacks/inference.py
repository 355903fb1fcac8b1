"""What answers; redeployed with every model."""

from pathlib import Path
from typing import Any

from aws_cdk import CfnOutput, Stack
from aws_cdk import aws_ecr as ecr
from constructs import Construct

from infra.constructs.classifier_function import ClassifierFunction
from infra.constructs.data_bucket import DataBucket
from infra.constructs.endpoint_scaling import EndpointScaling
from infra.constructs.monitoring.alarms import Alarms
from infra.constructs.monitoring.cost_guard import CostGuard
from infra.constructs.monitoring.dashboard import Dashboard
from infra.constructs.monitoring.metrics import EndpointMetrics
from infra.constructs.realtime_endpoint import RealtimeEndpoint
from infra.constructs.registry_image import serving_image
from infra.settings import Settings


class InferenceStack(Stack):
    """The endpoint, its scaling, the function in front of it, and what watches both.

    Alarms are here and not in a stack of their own, because the endpoint goes back by them: a stack that holds the
    alarms of both endpoint and function would have to be deployed before and after this one.
    """

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
        # Of an endpoint that was deleted by other means CloudFormation does not know, and never makes it again. So it
        # is taken out of the stack, with its scaling, before it is put back: `kennel deploy` does both.
        deleted = self.node.try_get_context("endpoint") == "deleted"
        metrics = EndpointMetrics(settings.endpoint_name, settings.serving.variant_name)
        alarms = Alarms(self, "Alarms", settings=settings.alarms, key=data.key) if settings.alarms else None
        endpoint = RealtimeEndpoint(
            self,
            "Endpoint",
            name=settings.endpoint_name,
            settings=settings.serving,
            image=serving_image(self, settings.serving, images),
            artifact=artifact,
            data=data,
            metrics_namespace=settings.project.capitalize(),
            metrics=metrics,
            alarms=alarms,
        )
        classifier = ClassifierFunction(
            self,
            "Classifier",
            settings=settings.function,
            endpoint_name=settings.endpoint_name,
            metrics_namespace=settings.project.capitalize(),
            retain_logs=settings.storage.retain,
        )
        endpoint.grant_invoke(classifier)
        if deleted:
            endpoint.node.try_remove_child("Endpoint")
        else:
            # It has the name as text; without this it would call a new endpoint that is still being created.
            classifier.function.node.add_dependency(endpoint.endpoint)
            if settings.serving.scaling:
                EndpointScaling(self, "Scaling", endpoint=endpoint, settings=settings.serving.scaling)
        if alarms:
            alarms.watch_function(classifier.function)
            if settings.drift:
                alarms.watch_drift(metrics, settings.project.capitalize())
            CfnOutput(self, "AlarmTopicArn", value=alarms.topic.topic_arn)
        Dashboard(
            self,
            "Dashboard",
            settings=settings,
            metrics=metrics,
            function=classifier.function,
            alarms=alarms.all if alarms else (),
        )
        if settings.cost_guard:
            CostGuard(self, "CostGuard", settings=settings, topic=alarms.topic if alarms else None, key=data.key)
        CfnOutput(self, "EndpointName", value=settings.endpoint_name)
        CfnOutput(self, "FunctionUrl", value=classifier.url.url)
        CfnOutput(self, "FunctionName", value=classifier.function.function_name)
        CfnOutput(self, "FunctionAliasArn", value=classifier.alias.function_arn)
        CfnOutput(self, "CallersPolicyArn", value=classifier.callers.managed_policy_arn)
