"""Application Auto Scaling that starts and stops real servers."""

from __future__ import annotations

import contextlib
from typing import Any

from botocore.exceptions import ClientError
from sagemaker_local import LocalSageMaker
from waiting import wait_until

CONDITIONS = {"clock": 60.0}
TARGET = {"ServiceNamespace": "sagemaker", "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}
METRIC = {"PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}}


def test_a_load_scales_real_servers_out_and_its_end_scales_them_in(aws: LocalSageMaker, role: str) -> None:
    endpoint = aws.endpoint(aws.config(aws.model(aws.artifact("1"), role)))
    target = {**TARGET, "ResourceId": f"endpoint/{endpoint}/variant/v"}
    aws.scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=3)
    aws.scaling.put_scaling_policy(
        **target,
        PolicyName="load",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={"TargetValue": 2.0, "ScaleInCooldown": 60, **METRIC},
    )

    def running(count: int, *, loaded: bool) -> bool:
        if loaded:
            with contextlib.suppress(ClientError):
                aws.runtime.invoke_endpoint(EndpointName=endpoint, Body=b"image")
        (variant,) = aws.sagemaker.describe_endpoint(EndpointName=endpoint)["ProductionVariants"]
        return bool(variant["CurrentInstanceCount"] == variant["DesiredInstanceCount"] == count)

    wait_until(lambda: running(3, loaded=True), 120)
    assert len(aws.pids(endpoint, 3)) == 3
    wait_until(lambda: running(1, loaded=False), 120)
    assert len(aws.pids(endpoint, 1)) == 1

    def told() -> Any:
        found = aws.scaling.describe_scaling_activities(ServiceNamespace="sagemaker")["ScalingActivities"]
        return [(each["Description"], each["StatusCode"]) for each in found]

    expected = [(f"Setting desired instance count to {count}.", "Successful") for count in (1, 3)]
    wait_until(lambda: told() == expected)
