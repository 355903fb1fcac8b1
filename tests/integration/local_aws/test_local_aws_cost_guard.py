"""The cost guard, from the template, under its role: what is forgotten is stopped, and nothing else."""

from __future__ import annotations

import json
from typing import Any

from guarded_stage import ENDPOINT, OTHER_ENDPOINT, TAGS, deploy_guard, launch
from local_aws_harness import refused
from sagemaker_local import BUCKET, LocalSageMaker
from waiting import wait_until

#: A rule of one minute fires every second.
CONDITIONS = {"clock": 60.0}


def state(aws: LocalSageMaker, identity: str) -> str:
    found = aws.client("ec2").describe_instances(InstanceIds=[identity])
    return str(found["Reservations"][0]["Instances"][0]["State"]["Name"])


def test_what_is_forgotten_is_stopped_by_the_schedule_and_nothing_else(aws: LocalSageMaker, role: str) -> None:
    config = aws.config(aws.model(aws.artifact("1"), role))
    for name in (ENDPOINT, OTHER_ENDPOINT):
        aws.endpoint(config, name)
    mine, other = launch(aws, **TAGS), launch(aws, **{**TAGS, "stage": "prod"})
    made = deploy_guard(aws, BUCKET, idle_endpoint="delete")
    gone = aws.sagemaker.describe_endpoint
    wait_until(lambda: ENDPOINT not in [one["EndpointName"] for one in aws.sagemaker.list_endpoints()["Endpoints"]])
    refused(gone, "Could not find", EndpointName=ENDPOINT)
    wait_until(lambda: state(aws, mine) == "terminated")
    assert aws.settled(OTHER_ENDPOINT)["EndpointStatus"] == "InService"
    assert state(aws, other) == "running"
    # Once there is nothing left to do, a run says so.
    function = made["AWS::Lambda::Function"]["PhysicalResourceId"]
    answer: dict[str, Any] = json.loads(aws.lambda_.invoke(FunctionName=function)["Payload"].read())
    assert answer == {"stage": "local", "stopped": [], "failed": []}
