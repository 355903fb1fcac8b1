"""Application Auto Scaling: what may be scaled, and what becomes of policies when their target goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import ACCOUNT, CALLER, make_host, refusal

from emulator.autoscaling import service as autoscaling
from emulator.autoscaling.service import ApplicationAutoScaling
from emulator.platform.awsapi import Payload
from emulator.platform.store import Store

TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/Dogs/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
LAMBDA = {
    "ServiceNamespace": "lambda",
    "ResourceId": "function:classify:live",
    "ScalableDimension": "lambda:function:ProvisionedConcurrency",
}
METRIC = {"PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}}
POLICY = {**TARGET, "PolicyName": "rps", "PolicyType": "TargetTrackingScaling"}
ACTION = {
    **TARGET,
    "ScheduledActionName": "night",
    "Schedule": "cron(0 22 * * ? *)",
    "ScalableTargetAction": {"MinCapacity": 1, "MaxCapacity": 1},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    endpoint = {"Fleet": {"Variants": [{"VariantName": "AllTraffic"}]}}
    store.table("sagemaker", "endpoint").put(f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:endpoint/dogs", endpoint)
    return store


@pytest.fixture
def scaling(tmp_path: Path, store: Store) -> ApplicationAutoScaling:
    return ApplicationAutoScaling(make_host(tmp_path))


def call(service: ApplicationAutoScaling, operation: str, **request: Any) -> Payload:
    return service.call(operation, request, CALLER)


def register(service: ApplicationAutoScaling, **members: Any) -> str:
    request = {**TARGET, "MinCapacity": 1, "MaxCapacity": 4, **members}
    return call(service, "RegisterScalableTarget", **request)["ScalableTargetARN"]


def put_policy(service: ApplicationAutoScaling, target_value: float = 70.0) -> Payload:
    configuration = {"TargetValue": target_value, **METRIC}
    return call(service, "PutScalingPolicy", **POLICY, TargetTrackingScalingPolicyConfiguration=configuration)


def described(service: ApplicationAutoScaling, what: str, namespace: str = "sagemaker") -> list[Payload]:
    return call(service, f"Describe{what}", ServiceNamespace=namespace)[what]


def test_registering_again_changes_a_target(scaling: ApplicationAutoScaling) -> None:
    arn = register(scaling)
    assert arn.startswith(f"arn:aws:application-autoscaling:eu-west-1:{ACCOUNT}:scalable-target/")
    suspended = {"ScheduledScalingSuspended": True}
    changed = call(scaling, "RegisterScalableTarget", **TARGET, MaxCapacity=9, SuspendedState=suspended)
    assert changed["ScalableTargetARN"] == arn
    (target,) = described(scaling, "ScalableTargets")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 9)
    assert target["SuspendedState"] == {
        "DynamicScalingInSuspended": False,
        "DynamicScalingOutSuspended": False,
        "ScheduledScalingSuspended": True,
    }


@pytest.mark.parametrize(
    ("operation", "members", "message"),
    [
        ("RegisterScalableTarget", {"ResourceId": "endpoint/Dogs/variant/Other"}, "doesn't exist: endpoint/Dogs"),
        ("RegisterScalableTarget", {"ResourceId": "Dogs"}, "Unsupported resource ID"),
        ("RegisterScalableTarget", {"ServiceNamespace": "lambda"}, "Unsupported service namespace"),
        ("RegisterScalableTarget", {"MinCapacity": 5, "MaxCapacity": 4}, "cannot be less than minimum"),
        ("RegisterScalableTarget", {**LAMBDA, "MinCapacity": 1}, "MaxCapacity is required"),
        ("PutScalingPolicy", POLICY, "needs a TargetTrackingScalingPolicyConfiguration"),
        ("PutScalingPolicy", {**POLICY, "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 1.0}}, "not both"),
        ("PutScheduledAction", {**ACTION, "Schedule": "daily"}, "at(…), rate(…), cron(…)"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_work_is_refused(
    scaling: ApplicationAutoScaling, operation: str, members: Payload, message: str
) -> None:
    register(scaling)
    before = [described(scaling, what) for what in ("ScalableTargets", "ScalingPolicies", "ScheduledActions")]
    error = refusal(lambda: call(scaling, operation, **{**TARGET, **members}))
    assert (error.code, message in error.message) == ("ValidationException", True)
    assert [described(scaling, what) for what in ("ScalableTargets", "ScalingPolicies", "ScheduledActions")] == before


def test_a_tracking_policy_has_alarms_that_stay_the_same(scaling: ApplicationAutoScaling) -> None:
    register(scaling)
    first = put_policy(scaling)
    assert put_policy(scaling, 90.0) == first
    assert [alarm["AlarmName"].split("-Alarm")[1].split("-")[0] for alarm in first["Alarms"]] == ["High", "Low"]
    (policy,) = described(scaling, "ScalingPolicies")
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 90.0


def test_without_a_target_there_is_nothing_to_change(scaling: ApplicationAutoScaling) -> None:
    policy = {**TARGET, "PolicyName": "p"}
    for operation, request in (
        ("PutScheduledAction", ACTION), ("DeleteScalingPolicy", policy), ("DeregisterScalableTarget", TARGET)
    ):  # fmt: skip
        error = refusal(lambda operation=operation, request=request: call(scaling, operation, **request))
        assert error.code == "ObjectNotFoundException"


@pytest.mark.parametrize("how", ["DeregisterScalableTarget", "the variant is deleted"])
def test_policies_and_actions_go_with_their_target(scaling: ApplicationAutoScaling, store: Store, how: str) -> None:
    register(scaling)
    register(scaling, **LAMBDA)
    put_policy(scaling)
    call(scaling, "PutScheduledAction", **ACTION)
    assert described(scaling, "ScheduledActions")[0]["Schedule"] == "cron(0 22 * * ? *)"
    if how == "DeregisterScalableTarget":
        call(scaling, how, **TARGET)
    else:
        autoscaling.deregister(store, "eu-west-1", "sagemaker", ["endpoint/Dogs/variant/All"])
        assert len(described(scaling, "ScalableTargets")) == 1
        autoscaling.deregister(store, "eu-west-1", "sagemaker", [TARGET["ResourceId"]])
    assert described(scaling, "ScalableTargets") == []
    register(scaling)
    assert described(scaling, "ScalingPolicies") == described(scaling, "ScheduledActions") == []
    assert len(described(scaling, "ScalableTargets", "lambda")) == 1


def test_lists_are_narrowed_and_cut_into_pages(scaling: ApplicationAutoScaling) -> None:
    names = [f"function:f{number}:live" for number in range(3)]
    for name in names:
        register(scaling, **{**LAMBDA, "ResourceId": name})

    def page(**narrowed: Any) -> tuple[list[str], str]:
        found = call(scaling, "DescribeScalableTargets", ServiceNamespace="lambda", **narrowed)
        return [target["ResourceId"] for target in found["ScalableTargets"]], found.get("NextToken", "")

    first, token = page(MaxResults=2)
    assert (first, page(MaxResults=2, NextToken=token)) == (names[:2], (names[2:], ""))
    assert page(ResourceIds=[names[1]]) == ([names[1]], "")
    assert refusal(lambda: page(NextToken="x")).code == "InvalidNextTokenException"


def test_targets_carry_tags_and_iam_is_told_the_target_once_there_is_one(scaling: ApplicationAutoScaling) -> None:
    assert scaling.resource_arns("RegisterScalableTarget", TARGET, CALLER) == ["*"]
    arn = register(scaling, Tags={"team": "dogs"})
    call(scaling, "TagResource", ResourceARN=arn, Tags={"stage": "dev"})
    call(scaling, "UntagResource", ResourceARN=arn, TagKeys=["team"])
    assert call(scaling, "ListTagsForResource", ResourceARN=arn) == {"Tags": {"stage": "dev"}}
    missing = refusal(lambda: call(scaling, "ListTagsForResource", ResourceARN=f"{arn}x"))
    assert missing.code == "ResourceNotFoundException"
    assert scaling.resource_arns("PutScalingPolicy", POLICY, CALLER) == [arn]
    assert scaling.resource_arns("DescribeScalableTargets", {"ServiceNamespace": "sagemaker"}, CALLER) == ["*"]
