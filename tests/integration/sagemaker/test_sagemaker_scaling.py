"""Application Auto Scaling that starts and stops real servers."""

from __future__ import annotations

from typing import Any

from sagemaker_local import LocalSageMaker
from waiting import wait_until

CONDITIONS = {"clock": 60.0}
TARGET = {"ServiceNamespace": "sagemaker", "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}
METRIC = {"Namespace": "Test", "MetricName": "LoadPerInstance", "Statistic": "Average"}


def test_a_load_scales_real_servers_out_and_its_end_scales_them_in(aws: LocalSageMaker, role: str) -> None:
    endpoint = aws.endpoint(aws.config(aws.model(aws.artifact("1"), role)))
    target = {**TARGET, "ResourceId": f"endpoint/{endpoint}/variant/v"}
    aws.scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=3)
    configuration = {"TargetValue": 10.0, "CustomizedMetricSpecification": METRIC, "ScaleInCooldown": 60}
    aws.scaling.put_scaling_policy(
        **target,
        PolicyName="load",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=configuration,
    )
    cloudwatch = aws.client("cloudwatch")

    def instances_under(load: float, count: int) -> set[int]:
        def loaded() -> Any:
            found = aws.sagemaker.describe_endpoint(EndpointName=endpoint)["ProductionVariants"][0]
            data = {"MetricName": METRIC["MetricName"], "Value": load / found["CurrentInstanceCount"]}
            cloudwatch.put_metric_data(Namespace=METRIC["Namespace"], MetricData=[data])
            return found["CurrentInstanceCount"] == found["DesiredInstanceCount"] == count

        wait_until(loaded, 120)
        return aws.pids(endpoint, count)

    assert len(instances_under(28.0, 3)) == 3
    assert len(instances_under(1.0, 1)) == 1

    def told() -> Any:
        found = aws.scaling.describe_scaling_activities(ServiceNamespace="sagemaker")["ScalingActivities"]
        return [(each["Description"], each["StatusCode"]) for each in found]

    expected = [(f"Setting desired instance count to {count}.", "Successful") for count in (1, 3)]
    wait_until(lambda: told() == expected)
