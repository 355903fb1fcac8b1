"""Provisioned concurrency is warm before it is called, follows its alias, and spills over; Lambda's metrics say so."""

from __future__ import annotations

import functools
import json
import threading
from pathlib import Path
from typing import Any

from local_aws_harness import LAMBDA_TRUST, LocalAws, refused
from waiting import wait_until

#: A period of a minute takes a second.
CONDITIONS = {"clock": 60.0}
# Says how its environment came to be; waits for a file, if told so.
SOURCE = """
import os, pathlib, time, uuid
HERE = uuid.uuid4().hex

def handler(event, context):
    if event.get("wait_for"):
        pathlib.Path(event["started"]).touch()
        while not pathlib.Path(event["wait_for"]).exists():
            time.sleep(0.01)
    kind = os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]
    return {"kind": kind, "here": HERE, "version": context.function_version, "arn": context.invoked_function_arn}
"""


def template(role: str, source: str, version: str, provisioned: int | None) -> dict[str, Any]:
    """A function, a version under a logical id of its own, and the alias `live` of it."""
    code = {"ZipFile": source}
    function = {"FunctionName": "warm", "Runtime": "python3.14", "Handler": "index.handler", "Role": role, "Code": code}
    alias: dict[str, Any] = {
        "FunctionName": {"Ref": "Function"},
        "Name": "live",
        "FunctionVersion": {"Fn::GetAtt": [version, "Version"]},
    }
    if provisioned:
        alias["ProvisionedConcurrencyConfig"] = {"ProvisionedConcurrentExecutions": provisioned}
    return {
        "Resources": {
            "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
            version: {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Function"}}},
            "Alias": {"Type": "AWS::Lambda::Alias", "Properties": alias},
        }
    }


def call(aws: LocalAws, function: str = "warm", **event: str) -> dict[str, Any]:
    answer = aws.lambda_.invoke(FunctionName=function, Qualifier="live", Payload=json.dumps(event))
    return dict(json.loads(answer["Payload"].read()))


def status(aws: LocalAws, function: str = "warm") -> tuple[Any, ...]:
    config = aws.lambda_.get_provisioned_concurrency_config(FunctionName=function, Qualifier="live")
    return config["Status"], config["AvailableProvisionedConcurrentExecutions"], config.get("StatusReason")


def test_provisioned_concurrency_is_warm_whatever_happens(aws: LocalAws, tmp_path: Path) -> None:
    role = aws.role("warm", LAMBDA_TRUST)
    made = aws.deploy("warm", template(role, SOURCE, "One", 1))
    assert made["StackStatus"] == "CREATE_COMPLETE", made["Reasons"]
    # CloudFormation has waited for it.
    assert status(aws) == ("READY", 1, None)
    first = call(aws)
    assert (first["kind"], first["version"]) == ("provisioned-concurrency", "1")
    assert first["arn"].endswith(":function:warm:live")

    # While it is in use, a call is served on demand.
    started, proceed = tmp_path / "started", tmp_path / "proceed"
    holding = threading.Thread(target=call, args=(aws,), kwargs={"started": str(started), "wait_for": str(proceed)})
    holding.start()
    try:
        wait_until(started.exists)
        assert call(aws)["kind"] == "on-demand"
    finally:
        proceed.touch()
        holding.join()
    assert call(aws)["here"] == first["here"]

    # What CloudWatch has of it: four calls of the alias, of which one on demand, two at the same time.
    resource = {"FunctionName": "warm", "Resource": "warm:live"}
    value = functools.partial(aws.statistic, "AWS/Lambda")
    wait_until(lambda: value("Invocations", **resource) == 4)
    assert value("Invocations", FunctionName="warm") == value("Invocations") == 4
    assert value("Errors", **resource, ExecutedVersion="1") == 0
    assert value("ConcurrentExecutions", "Maximum", **resource) == 2
    assert value("ProvisionedConcurrencySpilloverInvocations", **resource) == 1
    assert value("ProvisionedConcurrencyUtilization", "Maximum", **resource) == 1.0
    assert value("Duration", "Minimum", **resource) < aws.statistic("AWS/Lambda", "Duration", "Maximum", **resource)

    # The alias moves to a version that starts, and stays where it is when the version does not.
    moved = aws.deploy("warm", template(role, SOURCE + "\n", "Two", 1), update=True)
    assert moved["StackStatus"] == "UPDATE_COMPLETE", moved["Reasons"]
    second = call(aws)
    assert (second["kind"], second["version"]) == ("provisioned-concurrency", "2")
    broken = aws.deploy("warm", template(role, "import nothing_of_this_name", "Three", 1), update=True)
    assert broken["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "failed to be applied. Reason: FUNCTION_ERROR_INIT_FAILURE" in broken["Reasons"]
    assert call(aws)["here"] == second["here"]

    # After a restart of the server it is there again, before anybody calls.
    aws.kill()
    aws.up()
    wait_until(lambda: status(aws) == ("READY", 1, None))
    restored = call(aws)
    assert (restored["kind"], restored["version"]) == ("provisioned-concurrency", "2")
    assert restored["here"] != second["here"]


def test_an_alias_is_scaled_by_its_use_and_by_the_clock(aws: LocalAws) -> None:
    make(aws, aws.role("scaled", LAMBDA_TRUST))
    scaling = aws.client("application-autoscaling")
    target = {
        "ServiceNamespace": "lambda",
        "ResourceId": "function:scaled:live",
        "ScalableDimension": "lambda:function:ProvisionedConcurrency",
    }
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=2)
    predefined = {"PredefinedMetricType": "LambdaProvisionedConcurrencyUtilization"}
    tracking = {"TargetValue": 0.7, "PredefinedMetricSpecification": predefined}
    scaling.put_scaling_policy(
        **target, PolicyName="p", PolicyType="TargetTrackingScaling", TargetTrackingScalingPolicyConfiguration=tracking
    )
    # One call at a time is all of one environment, and half of two.
    wait_until(lambda: call(aws, "scaled") and status(aws, "scaled") == ("READY", 2, None))
    off = {"MinCapacity": 0, "MaxCapacity": 0}
    action = {"ScheduledActionName": "off", "Schedule": "rate(1 minute)", "ScalableTargetAction": off}
    scaling.put_scheduled_action(**target, **action)
    wait_until(lambda: not configs(aws))
    told = scaling.describe_scaling_activities(ServiceNamespace="lambda")["ScalingActivities"]
    assert (told[-1]["Description"], told[-1]["StatusCode"]) == ("Setting desired concurrency to 2.", "Successful")
    scaling.deregister_scalable_target(**target)


def test_what_is_kept_warm_goes_with_its_function_and_its_alias(aws: LocalAws) -> None:
    role = aws.role("gone", LAMBDA_TRUST)
    make(aws, role, "gone")
    old = call(aws, "gone")["here"]
    aws.lambda_.delete_function(FunctionName="gone")
    make(aws, role, "gone")  # at once, with the same names
    new = call(aws, "gone")
    assert new["kind"] == "provisioned-concurrency"
    assert new["here"] != old
    weights = {"AdditionalVersionWeights": {"1": 0.5}}
    refused(aws.lambda_.update_alias, "has one version", FunctionName="gone", Name="live", RoutingConfig=weights)
    aws.lambda_.delete_alias(FunctionName="gone", Name="live")
    wait_until(lambda: not configs(aws, "gone"))


def make(aws: LocalAws, role: str, name: str = "scaled") -> None:
    """Make a function with an alias that keeps one environment warm, and wait for it."""
    aws.function(name, SOURCE, role, Publish=True)
    aws.lambda_.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    asked = {"Qualifier": "live", "ProvisionedConcurrentExecutions": 1}
    assert aws.lambda_.put_provisioned_concurrency_config(FunctionName=name, **asked)["Status"] == "IN_PROGRESS"
    wait_until(lambda: status(aws, name) == ("READY", 1, None))


def configs(aws: LocalAws, name: str = "scaled") -> list[Any]:
    listed = aws.lambda_.list_provisioned_concurrency_configs(FunctionName=name)
    return list(listed["ProvisionedConcurrencyConfigs"])
