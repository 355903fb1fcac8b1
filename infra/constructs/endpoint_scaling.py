"""Scales the instances of an endpoint with its load, and by the clock."""

from aws_cdk import aws_applicationautoscaling as autoscaling
from constructs import Construct

from infra.constructs.realtime_endpoint import RealtimeEndpoint
from infra.tables.serving import EndpointScalingSettings

_METRICS = {
    "invocations": "SageMakerVariantInvocationsPerInstance",
    "concurrency": "SageMakerVariantConcurrentRequestsPerModelHighResolution",
}


class EndpointScaling(Construct):
    """Keeps the load of an instance near what it can bear, with a margin, between limits that schedules change.

    The L1 classes, because the L2 `ScalableTarget` makes a role of its own where AWS uses its service-linked one.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, endpoint: RealtimeEndpoint, settings: EndpointScalingSettings
    ) -> None:
        super().__init__(scope, construct_id)
        target = autoscaling.CfnScalableTarget(
            self,
            "Target",
            service_namespace="sagemaker",
            scalable_dimension="sagemaker:variant:DesiredInstanceCount",
            resource_id=f"endpoint/{endpoint.endpoint.attr_endpoint_name}/variant/{endpoint.variant_name}",
            min_capacity=settings.min_instances,
            max_capacity=settings.max_instances,
            scheduled_actions=[
                {
                    "scheduledActionName": each.name,
                    "schedule": f"cron({each.cron})",
                    "timezone": each.timezone,
                    "scalableTargetAction": {"minCapacity": each.min_instances, "maxCapacity": each.max_instances},
                }
                for each in settings.schedules
            ]
            or None,
        )
        autoscaling.CfnScalingPolicy(
            self,
            "LoadPerInstance",
            policy_name="load-per-instance",
            policy_type="TargetTrackingScaling",
            scaling_target_id=target.ref,
            target_tracking_scaling_policy_configuration={
                "targetValue": settings.target_value,
                "predefinedMetricSpecification": {"predefinedMetricType": _METRICS[settings.metric]},
                "scaleOutCooldown": settings.scale_out_cooldown_seconds,
                "scaleInCooldown": settings.scale_in_cooldown_seconds,
            },
        )
