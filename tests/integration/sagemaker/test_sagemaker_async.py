"""Asynchronous endpoints and response streams on a fast local AWS, through unmodified clients."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError
from local_aws_harness import policy, refused
from sagemaker_local import ACTIONS, BUCKET, LocalSageMaker
from waiting import wait_until

CONDITIONS = {"clock": 60}
OUTPUT = {"S3OutputPath": f"s3://{BUCKET}/async"}


def output(aws: LocalSageMaker, answer: dict[str, Any]) -> Any:
    with contextlib.suppress(aws.s3.exceptions.NoSuchKey):
        return aws.s3.get_object(Bucket=BUCKET, Key=answer["OutputLocation"].split("/", 3)[3])["Body"].read()


def counted(aws: LocalSageMaker, name: str, endpoint: str) -> float:
    return aws.statistic("AWS/SageMaker", name, EndpointName=endpoint, VariantName="v")


def test_a_queue_is_worked_off_with_the_rights_of_the_role_and_outlives_the_server(aws: LocalSageMaker) -> None:
    topic = aws.client("sns").create_topic(Name="done")["TopicArn"]
    told = {**OUTPUT, "NotificationConfig": {"SuccessTopic": topic}}
    aws.s3.put_object(Bucket=BUCKET, Key="given", Body=b"dog", ContentType="text/given")
    for more in ((), ("sns:Publish",)):
        name = aws.endpoint(aws.config(aws.model(aws.artifact("1"), aws.job_role(*ACTIONS, *more)), output=told))
        answer = aws.runtime.invoke_endpoint_async(EndpointName=name, InputLocation=f"s3://{BUCKET}/given")
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
        assert wait_until(lambda answer=answer: output(aws, answer)) == b"dog"
        wait_until(lambda name=name: counted(aws, "InvocationsProcessed", name) == 1)
        assert counted(aws, "NotificationFailures", name) == (0 if more else 1)
    # As SDK v2 sends them: the type is that of the object. The model answers with the type that it was given.
    written = aws.s3.head_object(Bucket=BUCKET, Key=answer["OutputLocation"].split("/", 3)[3])
    assert written["ContentType"] == "text/given"
    assert aws.sagemaker.describe_endpoint(EndpointName=name)["AsyncInferenceConfig"] == {"OutputConfig": told}
    refused(aws.runtime.invoke_endpoint, "use InvokeEndpointAsync", EndpointName=name, Body=b"x")
    sleeping = aws.runtime.invoke_endpoint_async(EndpointName=name, Body=b"sleep 2", ContentType="text/x")
    aws.kill()
    aws.up()
    assert wait_until(lambda: output(aws, sleeping)) == b"sleep 2"


@pytest.mark.slow  # an alarm of fifteen minutes, on a clock that is sixty times as fast
def test_an_endpoint_scales_in_to_zero_and_back_for_its_backlog(aws: LocalSageMaker, role: str) -> None:
    name = aws.endpoint(aws.config(aws.model(aws.artifact("1"), role), output=OUTPUT))
    dimension = "sagemaker:variant:DesiredInstanceCount"
    scaled = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{name}/variant/v",
        "ScalableDimension": dimension,
    }
    metric = {
        "Namespace": "AWS/SageMaker",
        "Dimensions": [{"Name": "EndpointName", "Value": name}],
        "Statistic": "Average",
    }
    aws.scaling.register_scalable_target(**scaled, MinCapacity=0, MaxCapacity=1)
    backlog = {"MetricName": "ApproximateBacklogSizePerInstance", **metric}
    tracking = {
        "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 5, "CustomizedMetricSpecification": backlog}
    }
    aws.scaling.put_scaling_policy(**scaled, PolicyName="track", PolicyType="TargetTrackingScaling", **tracking)
    steps = [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}]
    stepping = {"AdjustmentType": "ChangeInCapacity", "Cooldown": 60, "StepAdjustments": steps}
    wake = aws.scaling.put_scaling_policy(
        **scaled, PolicyName="wake", PolicyType="StepScaling", StepScalingPolicyConfiguration=stepping
    )
    rule = {"Period": 60, "EvaluationPeriods": 1, "Threshold": 1, "AlarmActions": [wake["PolicyARN"]]}
    rule |= {"MetricName": "HasBacklogWithoutCapacity", "ComparisonOperator": "GreaterThanOrEqualToThreshold"}
    aws.client("cloudwatch").put_metric_alarm(AlarmName="wake", **metric, **rule)
    wait_until(lambda: aws.settled(name)["ProductionVariants"][0]["DesiredInstanceCount"] == 0, 120)
    answer = aws.runtime.invoke_endpoint_async(EndpointName=name, Body=b"woken")
    assert wait_until(lambda: output(aws, answer), 120) == b"woken"


def test_parts_are_streamed_as_the_model_sends_them_to_those_who_may(aws: LocalSageMaker, role: str) -> None:
    name = aws.endpoint(aws.config(aws.model(aws.artifact("1"), role)))

    def stream(body: bytes, runtime: Any = aws.runtime) -> list[tuple[float, bytes]]:
        answer = runtime.invoke_endpoint_with_response_stream(EndpointName=name, Body=body)
        assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("text/x", "v")
        return [(time.monotonic(), event["PayloadPart"]["Bytes"]) for event in answer["Body"]]

    parts = stream(b"stream one two three")
    assert [part for _, part in parts] == [b"one", b"two", b"three"]
    assert parts[-1][0] - parts[0][0] > 0.3  # they did not come together
    with pytest.raises(EventStreamError, match="ModelStreamError"):
        stream(b"stream one!")
    actions = ("", "WithResponseStream", "Async")
    for allowed in actions:
        user = aws.user(f"may{allowed}", policy({"Action": f"sagemaker:InvokeEndpoint{allowed}", "Resource": "*"}))
        runtime, problems = aws.client("sagemaker-runtime", user), []
        for call in (
            runtime.invoke_endpoint,
            runtime.invoke_endpoint_with_response_stream,
            runtime.invoke_endpoint_async,
        ):
            try:
                problems.append(call(EndpointName=name, Body=b"stream a") and "")
            except ClientError as error:
                problems.append(error.response["Error"]["Code"])
        # The last one is allowed and refused: it is a real-time endpoint.
        passed = ["ValidationError" if action == "Async" else "" for action in actions]
        assert problems == [
            p if a == allowed else "AccessDeniedException" for a, p in zip(actions, passed, strict=True)
        ]
