"""What is scaled: how it is written, the metrics that target tracking follows, and how its capacity is changed."""

from __future__ import annotations

import re
from typing import Protocol

from emulator.autoscaling.policy import tracking_alarms
from emulator.platform.awsapi import Caller, Payload, Service, ServiceError
from emulator.platform.errors import refuse

INSTANCES = "sagemaker:variant:DesiredInstanceCount"
FUNCTION = "lambda:function:ProvisionedConcurrency"
#: How a resource is written, by its dimension; the parts are the dimensions of its metrics.
_RESOURCE_IDS = {
    INSTANCES: r"endpoint/(?P<EndpointName>[\w-]+)/variant/(?P<VariantName>[\w-]+)",
    FUNCTION: r"function:(?P<Resource>(?P<FunctionName>[\w-]+):[\w-]+)",
}
#: By its type: the dimension that it is for, and the metric of CloudWatch. From the guides of Application Auto Scaling,
#: SageMaker ("Define a scaling policy") and Lambda ("Configuring provisioned concurrency": the average).
_PREDEFINED = {
    "SageMakerVariantInvocationsPerInstance": (INSTANCES, "AWS/SageMaker", "InvocationsPerInstance", "Sum"),
    "SageMakerVariantConcurrentRequestsPerModelHighResolution": (
        *(INSTANCES, "AWS/SageMaker", "ConcurrentRequestsPerModel", "Maximum"),
    ),
    "LambdaProvisionedConcurrencyUtilization": (FUNCTION, "AWS/Lambda", "ProvisionedConcurrencyUtilization", "Average"),
}


def resource_parts(namespace: str, dimension: str, resource_id: str) -> dict[str, str]:
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
        one = custom.keys() >= {"MetricName", "Namespace", "Statistic"}
        refuse(not one, "A CustomizedMetricSpecification needs a MetricName, a Namespace and a Statistic.")
        return dict(custom)
    kind = configuration["PredefinedMetricSpecification"]["PredefinedMetricType"]
    dimension = policy["ScalableDimension"]
    known = {name: metric for name, (of, *metric) in _PREDEFINED.items() if of == dimension}
    wrong = kind not in known
    refuse(wrong, f"Unsupported predefined metric type {kind} for {dimension}. The local AWS has {', '.join(known)}.")
    namespace, name, statistic = known[kind]
    parts = resource_parts(policy["ServiceNamespace"], dimension, policy["ResourceId"])
    dimensions = [{"Name": name, "Value": value} for name, value in sorted(parts.items())]
    return {"Namespace": namespace, "MetricName": name, "Statistic": statistic, "Dimensions": dimensions}


class Capacity(Protocol):
    """The capacity of one kind of resource; `parts` are the names in a resource's id."""

    noun: str  # as activities call it
    service: str  # as errors call the service

    def read(self, region: str, parts: dict[str, str]) -> tuple[int, bool] | None:
        """Say how much is wanted, and whether no change is under way; None: there is no such resource."""

    def put(self, region: str, parts: dict[str, str], count: int) -> None:
        """Begin to change it; a ServiceError says why it cannot be."""


class Instances:
    noun, service = "desired instance count", "AmazonSageMaker"

    def __init__(self, sagemaker: Service, account: str) -> None:
        self._sagemaker, self._account = sagemaker, account

    def read(self, region: str, parts: dict[str, str]) -> tuple[int, bool] | None:
        request = {"EndpointName": parts["EndpointName"]}
        try:
            endpoint = self._sagemaker.call("DescribeEndpoint", request, Caller(self._account, region))
        except ServiceError:
            return None
        variants = {each["VariantName"]: each for each in endpoint.get("ProductionVariants", [])}
        wanted = variants.get(parts["VariantName"], {}).get("DesiredInstanceCount")
        return None if wanted is None else (wanted, endpoint["EndpointStatus"] == "InService")

    def put(self, region: str, parts: dict[str, str], count: int) -> None:
        desired = [{"VariantName": parts["VariantName"], "DesiredInstanceCount": count}]
        request = {"EndpointName": parts["EndpointName"], "DesiredWeightsAndCapacities": desired}
        self._sagemaker.call("UpdateEndpointWeightsAndCapacities", request, Caller(self._account, region))
