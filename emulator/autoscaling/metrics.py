"""What target tracking follows: the metrics that AWS predefines, and the alarms that it makes of them."""

from __future__ import annotations

import re

from emulator.autoscaling.policy import tracking_alarms
from emulator.platform.awsapi import Payload, ServiceError
from emulator.platform.errors import refuse

INSTANCES = "sagemaker:variant:DesiredInstanceCount"
SERVERLESS = "sagemaker:variant:DesiredProvisionedConcurrency"
FUNCTION = "lambda:function:ProvisionedConcurrency"
_VARIANT = r"endpoint/(?P<EndpointName>[\w-]+)/variant/(?P<VariantName>[\w-]+)"
#: How a resource is written, by its dimension; the parts are the dimensions of its metrics.
_RESOURCE_IDS = {
    INSTANCES: _VARIANT,
    SERVERLESS: _VARIANT,
    FUNCTION: r"function:(?P<Resource>(?P<FunctionName>[\w-]+):[\w-]+)",
}
#: By its type: the dimension that it is for, and the metric of CloudWatch. From the guides of Application Auto Scaling,
#: SageMaker ("Define a scaling policy") and Lambda ("Configuring provisioned concurrency": the average).
_PREDEFINED = {
    "SageMakerVariantInvocationsPerInstance": (INSTANCES, "AWS/SageMaker", "InvocationsPerInstance", "Sum"),
    "SageMakerVariantConcurrentRequestsPerModelHighResolution": (
        *(INSTANCES, "AWS/SageMaker", "ConcurrentRequestsPerModel", "Maximum"),
    ),
    "SageMakerVariantProvisionedConcurrencyUtilization": (
        *(SERVERLESS, "AWS/SageMaker", "ServerlessProvisionedConcurrencyUtilization", "Average"),
    ),
    "LambdaProvisionedConcurrencyUtilization": (FUNCTION, "AWS/Lambda", "ProvisionedConcurrencyUtilization", "Average"),
}


def resource_parts(namespace: str, dimension: str, resource_id: str) -> dict[str, str]:
    """Give the names in a resource id, or refuse what the local AWS does not scale."""
    refuse(
        dimension not in _RESOURCE_IDS or not dimension.startswith(f"{namespace}:"),
        f"Unsupported service namespace, resource type or scalable dimension: {namespace}, {dimension}. "
        f"The local AWS scales {', '.join(_RESOURCE_IDS)}.",
    )
    match = re.fullmatch(_RESOURCE_IDS[dimension], resource_id)
    refuse(match is None, f"Unsupported resource ID for {dimension}: {resource_id}")
    return match.groupdict() if match else {}


def policy_alarms(policy: Payload, action: str) -> dict[str, Payload]:
    """Give the alarms of a target tracking policy by ``High`` and ``Low``, as PutMetricAlarm takes them, without names.

    `action` is the ARN that the alarms call. A configuration that the local AWS cannot follow is refused.
    """
    configuration = policy["TargetTrackingScalingPolicyConfiguration"]
    common = {
        **_metric(policy, configuration),
        "AlarmActions": [action],
        "AlarmDescription": f"DO NOT EDIT OR DELETE. For TargetTrackingScaling policy {action}.",
    }
    return {
        side: {
            **common,
            "Period": rule.period,
            "EvaluationPeriods": rule.evaluation_periods,
            "Threshold": rule.threshold,
            "ComparisonOperator": rule.comparison,
        }
        for side, rule in zip(("High", "Low"), tracking_alarms(configuration), strict=False)
    }


def _metric(policy: Payload, configuration: Payload) -> Payload:
    kinds = {"PredefinedMetricSpecification", "CustomizedMetricSpecification"} & configuration.keys()
    refuse(
        len(kinds) != 1,
        "A target tracking configuration needs a PredefinedMetricSpecification or a CustomizedMetricSpecification, "
        "and not both.",
    )
    refuse(configuration["TargetValue"] <= 0, "The local AWS tracks a TargetValue above 0.")
    if (custom := configuration.get("CustomizedMetricSpecification")) is not None:
        one = custom.keys() >= {"MetricName", "Namespace", "Statistic"} and "Metrics" not in custom
        refuse(not one, "The local AWS tracks one metric: give its MetricName, Namespace and Statistic, no Metrics.")
        return dict(custom)
    kind, dimension = (
        configuration["PredefinedMetricSpecification"]["PredefinedMetricType"],
        policy["ScalableDimension"],
    )
    known = {name: metric for name, (of, *metric) in _PREDEFINED.items() if of == dimension}
    if kind not in known:
        message = f"Unsupported predefined metric type {kind} for {dimension}. The local AWS has {', '.join(known)}."
        raise ServiceError("ValidationException", message)
    namespace, name, statistic = known[kind]
    parts = resource_parts(policy["ServiceNamespace"], dimension, policy["ResourceId"])
    dimensions = [{"Name": name, "Value": value} for name, value in sorted(parts.items())]
    return {"Namespace": namespace, "MetricName": name, "Statistic": statistic, "Dimensions": dimensions}
