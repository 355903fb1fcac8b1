"""Application Auto Scaling: what may be scaled, and what becomes of policies when their target goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import ACCOUNT, CALLER, make_host, refusal

from emulator.autoscaling import service as autoscaling
from emulator.autoscaling.service import ApplicationAutoScaling
from emulator.platform.awsapi import Caller, Payload
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
TRACKING = {
    "TargetValue": 70.0,
    "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    arn = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:endpoint/dogs"
    variants = [
        {"VariantName": "AllTraffic", "Variant": {}},
        {"VariantName": "Serverless", "Variant": {"ServerlessConfig": {}}},
    ]
    store.table("sagemaker", "endpoint").put(arn, {"Fleet": {"Variants": variants}})
    return store


@pytest.fixture
def scaling(tmp_path: Path, store: Store) -> ApplicationAutoScaling:
    return ApplicationAutoScaling(make_host(tmp_path))


def call(service: ApplicationAutoScaling, operation: str, caller: Caller = CALLER, **request: Any) -> Payload:
    return service.call(operation, request, caller)


def register(service: ApplicationAutoScaling, **members: Any) -> str:
    return call(service, "RegisterScalableTarget", **{**TARGET, "MinCapacity": 1, "MaxCapacity": 4, **members})[
        "ScalableTargetARN"
    ]


def test_a_target_is_described_as_aws_does(scaling: ApplicationAutoScaling) -> None:
    arn = register(scaling)
    assert arn.startswith(f"arn:aws:application-autoscaling:eu-west-1:{ACCOUNT}:scalable-target/")
    (target,) = call(scaling, "DescribeScalableTargets", ServiceNamespace="sagemaker")["ScalableTargets"]
    assert isinstance(target.pop("CreationTime"), float)
    assert target == {
        **TARGET,
        "MinCapacity": 1,
        "MaxCapacity": 4,
        "ScalableTargetARN": arn,
        "RoleARN": f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/"
        "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint",
        "SuspendedState": {
            "DynamicScalingInSuspended": False,
            "DynamicScalingOutSuspended": False,
            "ScheduledScalingSuspended": False,
        },
    }


def test_registering_again_changes_the_same_target(scaling: ApplicationAutoScaling) -> None:
    first = register(scaling)
    again = call(scaling, "RegisterScalableTarget", **TARGET, MaxCapacity=9)["ScalableTargetARN"]
    (target,) = call(scaling, "DescribeScalableTargets", ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (first, target["MinCapacity"], target["MaxCapacity"]) == (again, 1, 9)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"ResourceId": "endpoint/Dogs/variant/Other"}, "doesn't exist: endpoint/Dogs/variant/Other"),
        ({"ResourceId": "endpoint/Cats/variant/AllTraffic"}, "doesn't exist"),
        ({"ResourceId": "endpoint/Dogs/variant/Serverless"}, "serverless"),
        ({"ResourceId": "Dogs"}, "Unsupported resource ID"),
        ({"ResourceId": "function:f"}, "Unsupported resource ID"),
        ({"ServiceNamespace": "lambda"}, "Unsupported service namespace"),
        ({"MinCapacity": 5}, "cannot be less than minimum"),
        ({"ScalableDimension": "sagemaker:variant:Nonsense"}, "Member must satisfy enum value set"),
    ],
)
def test_what_cannot_be_scaled_is_refused(scaling: ApplicationAutoScaling, members: Payload, message: str) -> None:
    error = refusal(lambda: register(scaling, **members))
    assert error.code == "ValidationException"
    assert message in error.message
    assert call(scaling, "DescribeScalableTargets", ServiceNamespace="sagemaker") == {"ScalableTargets": []}


def test_a_new_target_needs_both_bounds(scaling: ApplicationAutoScaling) -> None:
    error = refusal(lambda: call(scaling, "RegisterScalableTarget", **TARGET, MinCapacity=1))
    assert "MaxCapacity is required" in error.message


def test_provisioned_concurrency_of_an_alias_can_be_scaled(scaling: ApplicationAutoScaling) -> None:
    register(scaling, **LAMBDA)
    (target,) = call(scaling, "DescribeScalableTargets", ServiceNamespace="lambda")["ScalableTargets"]
    assert target["RoleARN"].endswith("_LambdaConcurrency")


def test_a_tracking_policy_has_alarms_that_stay_the_same(scaling: ApplicationAutoScaling) -> None:
    register(scaling)
    policy = {**TARGET, "PolicyName": "rps", "PolicyType": "TargetTrackingScaling"}
    first = call(scaling, "PutScalingPolicy", **policy, TargetTrackingScalingPolicyConfiguration=TRACKING)
    changed = {**TRACKING, "TargetValue": 90.0}
    second = call(scaling, "PutScalingPolicy", **policy, TargetTrackingScalingPolicyConfiguration=changed)
    assert first == second
    assert [alarm["AlarmName"].split("-Alarm")[1].split("-")[0] for alarm in first["Alarms"]] == ["High", "Low"]
    (described,) = call(scaling, "DescribeScalingPolicies", ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert described["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 90.0
    assert described["PolicyARN"].endswith("resource/sagemaker/endpoint/Dogs/variant/AllTraffic:policyName/rps")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"PolicyType": "TargetTrackingScaling"}, "needs a TargetTrackingScalingPolicyConfiguration"),
        ({}, "needs a StepScalingPolicyConfiguration"),
        (
            {
                "PolicyType": "TargetTrackingScaling",
                "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 1.0},
            },
            "PredefinedMetricSpecification or a",
        ),
    ],
)
def test_a_policy_needs_its_configuration(scaling: ApplicationAutoScaling, members: Payload, message: str) -> None:
    register(scaling)
    assert message in refusal(lambda: call(scaling, "PutScalingPolicy", **TARGET, PolicyName="p", **members)).message


def test_policies_and_actions_need_a_target_and_go_with_it(scaling: ApplicationAutoScaling) -> None:
    policy = {
        **TARGET,
        "PolicyName": "rps",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": TRACKING,
    }
    action = {
        **TARGET,
        "ScheduledActionName": "night",
        "Schedule": "cron(0 22 * * ? *)",
        "ScalableTargetAction": {"MinCapacity": 1, "MaxCapacity": 1},
    }
    for operation, request in (("PutScalingPolicy", policy), ("PutScheduledAction", action)):
        error = refusal(lambda operation=operation, request=request: call(scaling, operation, **request))
        assert error.code == "ObjectNotFoundException"
    register(scaling)
    call(scaling, "PutScalingPolicy", **policy)
    call(scaling, "PutScheduledAction", **action)
    (described,) = call(scaling, "DescribeScheduledActions", ServiceNamespace="sagemaker")["ScheduledActions"]
    assert described["Schedule"] == "cron(0 22 * * ? *)"
    call(scaling, "DeregisterScalableTarget", **TARGET)
    register(scaling)
    assert call(scaling, "DescribeScalingPolicies", ServiceNamespace="sagemaker") == {"ScalingPolicies": []}
    assert call(scaling, "DescribeScheduledActions", ServiceNamespace="sagemaker") == {"ScheduledActions": []}


def test_deleting_what_is_not_there_is_an_error(scaling: ApplicationAutoScaling) -> None:
    register(scaling)
    for operation, members in (
        ("DeleteScalingPolicy", {"PolicyName": "p"}),
        ("DeleteScheduledAction", {"ScheduledActionName": "a"}),
        ("DeregisterScalableTarget", {"ResourceId": "endpoint/Other/variant/v"}),
    ):
        error = refusal(lambda operation=operation, members=members: call(scaling, operation, **{**TARGET, **members}))
        assert error.code == "ObjectNotFoundException"


def test_a_schedule_has_one_of_three_forms(scaling: ApplicationAutoScaling) -> None:
    register(scaling)
    request = {**TARGET, "ScheduledActionName": "a", "Schedule": "daily", "ScalableTargetAction": {"MinCapacity": 1}}
    assert "at(…), rate(…), cron(…)" in refusal(lambda: call(scaling, "PutScheduledAction", **request)).message


def test_targets_of_deleted_variants_are_forgotten_with_all_that_hangs_on_them(
    scaling: ApplicationAutoScaling, store: Store
) -> None:
    register(scaling)
    register(scaling, **LAMBDA)
    call(
        scaling,
        "PutScalingPolicy",
        **TARGET,
        PolicyName="p",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=TRACKING,
    )
    autoscaling.deregister(store, "eu-west-1", "sagemaker", ["endpoint/Dogs/variant/All"])
    assert len(call(scaling, "DescribeScalableTargets", ServiceNamespace="sagemaker")["ScalableTargets"]) == 1
    autoscaling.deregister(store, "eu-west-1", "sagemaker", [TARGET["ResourceId"]])
    assert call(scaling, "DescribeScalableTargets", ServiceNamespace="sagemaker") == {"ScalableTargets": []}
    assert call(scaling, "DescribeScalingPolicies", ServiceNamespace="sagemaker") == {"ScalingPolicies": []}
    assert len(call(scaling, "DescribeScalableTargets", ServiceNamespace="lambda")["ScalableTargets"]) == 1


def test_lists_are_narrowed_and_cut_into_pages(scaling: ApplicationAutoScaling) -> None:
    for number in range(5):
        register(scaling, **{**LAMBDA, "ResourceId": f"function:f{number}:live"})
    seen: list[str] = []
    token: Payload = {}
    while True:
        page = call(scaling, "DescribeScalableTargets", ServiceNamespace="lambda", MaxResults=2, **token)
        seen += [target["ResourceId"] for target in page["ScalableTargets"]]
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert seen == [f"function:f{number}:live" for number in range(5)]
    only = call(scaling, "DescribeScalableTargets", ServiceNamespace="lambda", ResourceIds=["function:f3:live"])
    assert [target["ResourceId"] for target in only["ScalableTargets"]] == ["function:f3:live"]
    bad = refusal(lambda: call(scaling, "DescribeScalableTargets", ServiceNamespace="lambda", NextToken="x"))
    assert bad.code == "InvalidNextTokenException"
    dimension = {"ServiceNamespace": "lambda", "ScalableDimension": LAMBDA["ScalableDimension"]}
    assert "must be given together" in refusal(lambda: call(scaling, "DescribeScalingPolicies", **dimension)).message


def test_targets_carry_tags(scaling: ApplicationAutoScaling) -> None:
    arn = register(scaling, Tags={"team": "dogs"})
    call(scaling, "TagResource", ResourceARN=arn, Tags={"stage": "dev"})
    call(scaling, "UntagResource", ResourceARN=arn, TagKeys=["team"])
    assert call(scaling, "ListTagsForResource", ResourceARN=arn) == {"Tags": {"stage": "dev"}}
    missing = refusal(lambda: call(scaling, "ListTagsForResource", ResourceARN=f"{arn}x"))
    assert (missing.code, missing.fields) == ("ResourceNotFoundException", {"ResourceName": f"{arn}x"})


def test_iam_is_told_the_target_once_there_is_one(scaling: ApplicationAutoScaling) -> None:
    assert scaling.resource_arns("RegisterScalableTarget", TARGET, CALLER) == ["*"]
    arn = register(scaling)
    assert scaling.resource_arns("PutScalingPolicy", {**TARGET, "PolicyName": "p"}, CALLER) == [arn]
    assert scaling.resource_arns("DescribeScalableTargets", {"ServiceNamespace": "sagemaker"}, CALLER) == ["*"]
    assert scaling.resource_arns("ListTagsForResource", {"ResourceARN": arn}, CALLER) == [arn]
