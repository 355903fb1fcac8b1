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


POLICY = {**TARGET, "PolicyName": "rps", "PolicyType": "TargetTrackingScaling"}
ACTION = {
    **TARGET,
    "ScheduledActionName": "night",
    "Schedule": "cron(0 22 * * ? *)",
    "ScalableTargetAction": {"MinCapacity": 1, "MaxCapacity": 1},
}


def call(service: ApplicationAutoScaling, operation: str, **request: Any) -> Payload:
    return service.call(operation, request, CALLER)


def register(service: ApplicationAutoScaling, **members: Any) -> str:
    request = {**TARGET, "MinCapacity": 1, "MaxCapacity": 4, **members}
    return call(service, "RegisterScalableTarget", **request)["ScalableTargetARN"]


def put_policy(service: ApplicationAutoScaling, **members: Any) -> Payload:
    configuration = {**TRACKING, **members}
    return call(service, "PutScalingPolicy", **POLICY, TargetTrackingScalingPolicyConfiguration=configuration)


def described(service: ApplicationAutoScaling, what: str, namespace: str = "sagemaker") -> list[Payload]:
    return call(service, f"Describe{what}", ServiceNamespace=namespace)[what]


def test_a_target_is_described_as_aws_does_and_registering_again_changes_it(scaling: ApplicationAutoScaling) -> None:
    arn = register(scaling)
    assert arn.startswith(f"arn:aws:application-autoscaling:eu-west-1:{ACCOUNT}:scalable-target/")
    assert call(scaling, "RegisterScalableTarget", **TARGET, MaxCapacity=9)["ScalableTargetARN"] == arn
    (target,) = described(scaling, "ScalableTargets")
    assert isinstance(target.pop("CreationTime"), float)
    assert target == {
        **TARGET,
        "MinCapacity": 1,
        "MaxCapacity": 9,
        "ScalableTargetARN": arn,
        "RoleARN": f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/"
        "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint",
        "SuspendedState": {
            "DynamicScalingInSuspended": False,
            "DynamicScalingOutSuspended": False,
            "ScheduledScalingSuspended": False,
        },
    }
    register(scaling, **LAMBDA)
    (target,) = described(scaling, "ScalableTargets", "lambda")
    assert target["RoleARN"].endswith("_LambdaConcurrency")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"ResourceId": "endpoint/Dogs/variant/Other"}, "doesn't exist: endpoint/Dogs/variant/Other"),
        ({"ResourceId": "endpoint/Cats/variant/AllTraffic"}, "doesn't exist"),
        ({"ResourceId": "endpoint/Dogs/variant/Serverless"}, "serverless"),
        ({"ResourceId": "Dogs"}, "Unsupported resource ID"),
        ({"ServiceNamespace": "lambda"}, "Unsupported service namespace"),
        ({"MinCapacity": 5}, "cannot be less than minimum"),
        ({"ScalableDimension": "sagemaker:variant:Nonsense"}, "Member must satisfy enum value set"),
    ],
)
def test_what_cannot_be_scaled_is_refused(scaling: ApplicationAutoScaling, members: Payload, message: str) -> None:
    error = refusal(lambda: register(scaling, **members))
    assert error.code == "ValidationException"
    assert message in error.message
    assert described(scaling, "ScalableTargets") == []


def test_a_tracking_policy_has_alarms_that_stay_the_same(scaling: ApplicationAutoScaling) -> None:
    register(scaling)
    first = put_policy(scaling)
    assert put_policy(scaling, TargetValue=90.0) == first
    assert [alarm["AlarmName"].split("-Alarm")[1].split("-")[0] for alarm in first["Alarms"]] == ["High", "Low"]
    (policy,) = described(scaling, "ScalingPolicies")
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 90.0
    assert policy["PolicyARN"].endswith("resource/sagemaker/endpoint/Dogs/variant/AllTraffic:policyName/rps")


@pytest.mark.parametrize(
    ("operation", "request_", "message"),
    [
        ("RegisterScalableTarget", {**LAMBDA, "MinCapacity": 1}, "MaxCapacity is required"),
        ("PutScalingPolicy", POLICY, "needs a TargetTrackingScalingPolicyConfiguration"),
        ("PutScalingPolicy", {**TARGET, "PolicyName": "p"}, "needs a StepScalingPolicyConfiguration"),
        (
            "PutScalingPolicy",
            {**POLICY, "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 1.0}},
            "PredefinedMetricSpecification or a",
        ),
        ("PutScheduledAction", {**ACTION, "Schedule": "daily"}, "at(…), rate(…), cron(…)"),
        ("DescribeScalingPolicies", {**LAMBDA, "ResourceId": None}, "must be given together"),
    ],
)
def test_a_request_that_is_not_complete_is_refused(
    scaling: ApplicationAutoScaling, operation: str, request_: Payload, message: str
) -> None:
    register(scaling)
    given = {name: value for name, value in request_.items() if value is not None}
    assert message in refusal(lambda: call(scaling, operation, **given)).message


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("PutScalingPolicy", {**POLICY, "TargetTrackingScalingPolicyConfiguration": TRACKING}),
        ("PutScheduledAction", ACTION),
        ("DeleteScalingPolicy", {**TARGET, "PolicyName": "p"}),
        ("DeleteScheduledAction", {**TARGET, "ScheduledActionName": "a"}),
        ("DeregisterScalableTarget", TARGET),
    ],
)
def test_without_a_target_there_is_nothing_to_change(
    scaling: ApplicationAutoScaling, operation: str, request_: Payload
) -> None:
    assert refusal(lambda: call(scaling, operation, **request_)).code == "ObjectNotFoundException"


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


def test_targets_carry_tags_and_iam_is_told_the_target_once_there_is_one(scaling: ApplicationAutoScaling) -> None:
    assert scaling.resource_arns("RegisterScalableTarget", TARGET, CALLER) == ["*"]
    arn = register(scaling, Tags={"team": "dogs"})
    call(scaling, "TagResource", ResourceARN=arn, Tags={"stage": "dev"})
    call(scaling, "UntagResource", ResourceARN=arn, TagKeys=["team"])
    assert call(scaling, "ListTagsForResource", ResourceARN=arn) == {"Tags": {"stage": "dev"}}
    missing = refusal(lambda: call(scaling, "ListTagsForResource", ResourceARN=f"{arn}x"))
    assert (missing.code, missing.fields) == ("ResourceNotFoundException", {"ResourceName": f"{arn}x"})
    assert scaling.resource_arns("PutScalingPolicy", POLICY, CALLER) == [arn]
    assert scaling.resource_arns("DescribeScalableTargets", {"ServiceNamespace": "sagemaker"}, CALLER) == ["*"]
    assert scaling.resource_arns("ListTagsForResource", {"ResourceARN": arn}, CALLER) == [arn]
