"""Application Auto Scaling: what may be scaled, and what becomes of policies when their target goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import CALLER, refusal
from examples import refusals
from local_scaling import METRIC, TARGET, LocalScaling

from emulator.autoscaling.records import deregister
from emulator.platform.awsapi import Payload

Call = Callable[..., Payload]
LAMBDA = {
    "ServiceNamespace": "lambda",
    "ResourceId": "function:classify:live",
    "ScalableDimension": "lambda:function:ProvisionedConcurrency",
}
CAPACITY = {"MinCapacity": 1, "MaxCapacity": 4}
POLICY = {**TARGET, "PolicyName": "rps", "PolicyType": "TargetTrackingScaling"}
TRACKING = {"TargetTrackingScalingPolicyConfiguration": {"TargetValue": 70.0, **METRIC}}
ACTION = {
    **TARGET,
    "ScheduledActionName": "night",
    "Schedule": "cron(0 22 * * ? *)",
    "ScalableTargetAction": {"MinCapacity": 1, "MaxCapacity": 1},
}


@pytest.fixture
def aws(tmp_path: Path) -> LocalScaling:
    return LocalScaling(tmp_path)


@pytest.fixture
def call(aws: LocalScaling) -> Call:
    return aws.call


def described(call: Call, what: str, namespace: str = "sagemaker") -> list[Payload]:
    return call(f"Describe{what}", ServiceNamespace=namespace)[what]


REQUESTS = {"RegisterScalableTarget": TARGET, "PutScalingPolicy": POLICY, "PutScheduledAction": ACTION}


@pytest.mark.parametrize(("operation", "request_", "message", "code"), refusals(__file__, REQUESTS))
def test_a_request_that_cannot_work_is_refused(
    call: Call, operation: str, request_: Payload, message: str, code: str
) -> None:
    before = [described(call, what) for what in ("ScalableTargets", "ScalingPolicies", "ScheduledActions")]
    error = refusal(lambda: call(operation, **request_))
    assert (error.code, message in error.message) == (code or "ValidationException", True)
    assert [described(call, what) for what in ("ScalableTargets", "ScalingPolicies", "ScheduledActions")] == before


@pytest.mark.parametrize("how", ["DeregisterScalableTarget", "the variant is deleted"])
def test_policies_and_actions_go_with_their_target(aws: LocalScaling, call: Call, how: str) -> None:
    call("RegisterScalableTarget", **LAMBDA, **CAPACITY)
    call("PutScalingPolicy", **POLICY, **TRACKING)
    call("PutScheduledAction", **ACTION)
    if how == "DeregisterScalableTarget":
        call(how, **TARGET)
    else:
        deregister(aws.store, aws.monitoring, "eu-west-1", "sagemaker", ["endpoint/Dogs/variant/All"])
        assert len(described(call, "ScalableTargets")) == 1
        deregister(aws.store, aws.monitoring, "eu-west-1", "sagemaker", [TARGET["ResourceId"]])
    for operation, request in (("PutScheduledAction", ACTION), ("DeregisterScalableTarget", TARGET)):
        error = refusal(lambda operation=operation, request=request: call(operation, **request))
        assert error.code == "ObjectNotFoundException"
    call("RegisterScalableTarget", **TARGET, **CAPACITY)
    assert described(call, "ScalingPolicies") == described(call, "ScheduledActions") == []
    assert not aws.monitoring.alarms
    assert len(described(call, "ScalableTargets", "lambda")) == 1


def test_lists_are_narrowed_and_cut_into_pages(call: Call) -> None:
    names = [f"function:f{number}:live" for number in range(3)]
    for name in names:
        call("RegisterScalableTarget", **{**LAMBDA, **CAPACITY, "ResourceId": name})

    def page(**narrowed: Any) -> tuple[list[str], str]:
        found = call("DescribeScalableTargets", ServiceNamespace="lambda", **narrowed)
        return [target["ResourceId"] for target in found["ScalableTargets"]], found.get("NextToken", "")

    first, token = page(MaxResults=2)
    assert (first, page(MaxResults=2, NextToken=token)) == (names[:2], (names[2:], ""))
    assert page(ResourceIds=[names[1]]) == ([names[1]], "")
    assert refusal(lambda: page(NextToken="x")).code == "InvalidNextTokenException"


def test_targets_carry_tags_and_iam_is_told_the_target_once_there_is_one(aws: LocalScaling, call: Call) -> None:
    assert aws.service.resource_arns("RegisterScalableTarget", LAMBDA, CALLER) == ["*"]
    given = {"Tags": {"team": "dogs"}, "RoleARN": f"arn:aws:iam::{CALLER.account}:role/mine"}
    arn = call("RegisterScalableTarget", **LAMBDA, **CAPACITY, **given)["ScalableTargetARN"]
    [target] = described(call, "ScalableTargets", "lambda")
    assert target["RoleARN"].endswith("AWSServiceRoleForApplicationAutoScaling_LambdaConcurrency")
    call("TagResource", ResourceARN=arn, Tags={"stage": "dev"})
    call("UntagResource", ResourceARN=arn, TagKeys=["team"])
    assert call("ListTagsForResource", ResourceARN=arn) == {"Tags": {"stage": "dev"}}
    missing = refusal(lambda: call("ListTagsForResource", ResourceARN=f"{arn}x"))
    assert missing.code == "ResourceNotFoundException"
    assert aws.service.resource_arns("PutScalingPolicy", LAMBDA, CALLER) == [arn]
    assert aws.service.resource_arns("DescribeScalableTargets", {"ServiceNamespace": "sagemaker"}, CALLER) == ["*"]
