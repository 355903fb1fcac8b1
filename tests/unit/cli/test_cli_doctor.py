"""`kennel doctor` finds each fault and none in a sound stage; `kennel status` says what is, and only what was read."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from fake_account import FakeAccount
from sound_stage import ENDPOINT, LIVE, ROLE, STACK, VARIANT, nothing, sound_account, sound_stage, statement

from cli import main
from cli.operating.doctor.command import CHECKS, diagnose
from cli.operating.status import read_status

TAGGED = {"ResourceTagMappingList": [{"ResourceARN": "arn:aws:sagemaker:us-east-1:1:model/old"}]}
TRUSTING = {"AssumeRolePolicyDocument": {"Statement": [statement("x", {"Service": "sagemaker.amazonaws.com"})]}}
ADMIN = {"AttachedPolicies": [{"PolicyName": "Admin", "PolicyArn": "arn:a"}]}
FORGOTTEN = {"InstanceId": "i-1", "LaunchTime": datetime(2025, 1, 1, tzinfo=UTC)}
LOST_TARGET = {"ResourceId": f"endpoint/{ENDPOINT}-old/variant/main", "ScalableDimension": "d"}


def answer(operation: str, value: Any) -> Callable[[FakeAccount], Any]:
    return lambda aws: aws.answers.update({operation: value})


def change(operation: str, **changes: Any) -> Callable[[FakeAccount], Any]:
    return lambda aws: aws.answers[operation].update(changes)


def warm_target(**changes: Any) -> Callable[[FakeAccount], Any]:
    return lambda aws: aws.targets[LIVE].update(changes)


def alarm(**changes: Any) -> Callable[[FakeAccount], Any]:
    return lambda aws: aws.answers["describe_alarms"]["MetricAlarms"][0].update(changes)


def endpoint(**changes: Any) -> Callable[[FakeAccount], Any]:
    return lambda aws: aws.endpoints[ENDPOINT].update(changes)


FAULTS: list[tuple[str, Callable[[FakeAccount], Any], str, str]] = [
    ("endpoint", answer("describe_endpoint", nothing), "there is no endpoint", "kennel deploy"),
    ("endpoint", endpoint(EndpointStatus="Failed", FailureReason="no capacity"), "no capacity", "kennel deploy"),
    ("endpoint", endpoint(EndpointConfigName="old"), "still serves old", "kennel deploy"),
    ("endpoint", lambda aws: aws.answers["describe_alarms"]["MetricAlarms"].pop(0), "roll back by alarms", "cdk"),
    ("model", change("describe_model_package", ModelApprovalStatus="Rejected"), "", "rollback"),
    ("function URL", answer("get_function_url_config", nothing), "no URL", "cdk"),
    ("function URL", answer("get_function_url_config", {"AuthType": "NONE"}), "AuthType is NONE", "cdk"),
    ("function URL", lambda aws: aws.callers.pop("lambda:InvokeFunction"), "lambda:InvokeFunction on", "cdk"),
    ("function URL", lambda aws: aws.callers.pop("lambda:InvokeFunctionUrl"), "InvokeFunctionUrl on", "cdk"),
    ("function URL", lambda aws: aws.callers.update(x="*"), "* may call it", "remove-permission"),
    ("provisioned concurrency", answer("get_provisioned_concurrency_config", nothing), "no provisioned", "cdk"),
    ("scaling", lambda aws: aws.targets.pop(VARIANT), f"{VARIANT} is not registered", "cdk"),
    ("scaling", lambda aws: aws.targets.pop(LIVE), f"{LIVE} is not registered", "cdk"),
    ("scaling", warm_target(MaxCapacity=9), "(1, 9), the settings say (1, 4)", "--max-capacity 4"),
    ("scaling", warm_target(SuspendedState={"ScheduledScalingSuspended": True}), "has Sched", "Suspended=false"),
    ("scaling", answer("describe_scaling_policies", {"ScalingPolicies": []}), "lost: its policy", "cdk"),
    ("scaling", lambda aws: aws.answers["describe_alarms"]["MetricAlarms"].pop(), "lost: TargetTracking-high", "cdk"),
    ("roles", answer("get_role", nothing), "is not there", "cdk"),
    ("roles", answer("get_role", {"Role": TRUSTING}), "without aws:SourceAccount", "cdk"),
    ("roles", answer("list_role_policies", {"PolicyNames": []}), "lacks its policy Logs", "cdk"),
    ("roles", change("list_role_policies", PolicyNames=["Logs", "All"]), "has the policy All", "delete-role-policy"),
    ("roles", answer("list_attached_role_policies", ADMIN), f"{ROLE} has the policy Admin", "detach-role-policy"),
    ("alarms", lambda aws: aws.answers["describe_alarms"]["MetricAlarms"].pop(0), "errors is not there", "cdk"),
    ("alarms", alarm(AlarmActions=[]), "does not tell", "cdk"),
    ("alarms", alarm(ActionsEnabled=False), "tells nobody", "enable-alarm-actions"),
    ("alarms", alarm(StateValue="ALARM"), "errors is ALARM since 2025", "dashboard kennel-dev"),
    ("alarm topic", answer("get_topic_attributes", {"Attributes": {}}), "is not encrypted", "cdk"),
    ("alarm topic", answer("get_key_policy", {"Policy": '{"Statement": []}'}), "let CloudWatch", "kennel-dev-storage"),
    ("cost guard and budget", change("describe_rule", State="DISABLED"), "is DISABLED", "aws events enable-rule"),
    ("cost guard and budget", change("describe_rule", Arn="arn:x"), "may not call", "cdk"),
    ("cost guard and budget", answer("describe_budget", nothing), "budget dev-budget is not there", "cdk"),
]
WARNINGS: list[tuple[str, Callable[[FakeAccount], Any], str, str]] = [
    ("endpoint", endpoint(EndpointStatus="Updating"), "Updating", "wait"),
    ("model", answer("list_model_packages", {"ModelPackageSummaryList": []}), "no version of", "kennel package"),
    ("provisioned concurrency", lambda aws: aws.warm.update(Status="IN_PROGRESS"), "IN_PROGRESS", "wait"),
    ("alarms", alarm(StateValue="INSUFFICIENT_DATA"), "INSUFFICIENT_DATA since 2025", "CloudWatch"),
    ("alarm topic", lambda aws: aws.subscription.update(SubscriptionArn="PendingConfirmation"), "on@call", "confirm"),
    ("log retention", lambda aws: aws.retention.pop("calls"), "calls never expires", "put-retention-policy"),
    ("log retention", lambda aws: aws.log_groups.pop("/aws/sagemaker/TransformJobs"), "is not there", "kennel deploy"),
    ("quotas", lambda aws: aws.quotas.update({"ml.m5.large for endpoint usage": 1}), "is 1", "Service Quotas"),
    ("quotas", lambda aws: aws.add_endpoint("another", "ml.m5.large", 7), "8 are in use", "Service Quotas"),
    ("quotas", lambda aws: aws.limit_concurrency(1000, 150), "leaves 51 of", "Service Quotas"),
    ("orphans", lambda aws: aws.answers.update(get_resources=TAGGED), "the model old", "delete-model --model-name old"),
    ("orphans", lambda aws: aws.targets.update(old=LOST_TARGET), f"{ENDPOINT}-old", "deregister-scalable-target"),
    ("orphans", lambda aws: aws.instances.append(FORGOTTEN), "i-1", "terminate"),
    ("orphans", answer("list_objects_v2", {"CommonPrefixes": [{"Prefix": "models/0/"}]}), "models/0/", "s3 rm"),
]


def test_a_sound_stage_has_no_faults():
    assert [(each.check, each.result) for each in diagnose(sound_stage(sound_account()))] == [
        (name, "ok") for name in CHECKS
    ]


@pytest.mark.parametrize(
    ("result", "check", "plant", "evidence", "fix"),
    [*(("problem", *fault) for fault in FAULTS), *(("warning", *fault) for fault in WARNINGS)],
)
def test_a_fault_is_found_with_evidence_and_a_fix(result, check, plant, evidence, fix):
    plant(aws := sound_account())
    found = [each for each in diagnose(sound_stage(aws)) if (each.check, each.result) == (check, result)]
    assert any(evidence in each.evidence and fix in each.fix for each in found), found


def test_a_check_that_aws_does_not_let_us_make_is_no_success_and_the_others_go_on():
    aws = sound_account()
    aws.refused.add("list_role_policies")
    findings = {each.check: each for each in diagnose(sound_stage(aws))}
    assert findings["roles"].result == "not checked" and "AWS refused" in findings["roles"].evidence
    assert {each.result for name, each in findings.items() if name != "roles"} == {"ok"}


@pytest.mark.parametrize(
    ("plant", "code"), [(lambda _: None, 0), (WARNINGS[0][1], 0), (FAULTS[1][1], 6), ("not deployed", 3)]
)
def test_the_exit_code_tells_problems_from_warnings(kennel, monkeypatch, plant, code):
    aws = sound_account()
    if plant == "not deployed":
        del aws.stacks[STACK]
    else:
        plant(aws)
    monkeypatch.setattr(main, "Stage", lambda *_: sound_stage(aws))
    assert kennel("doctor")[0] == code
    stopped, output = kennel("doctor", "--json")
    assert stopped == code
    if code != 3:
        assert len(json.JSONDecoder().raw_decode(output)[0]) >= len(CHECKS)


def test_the_facts_are_those_that_aws_gives():
    aws = sound_account()
    found = read_status(sound_stage(aws))
    assert found["stacks"] == dict.fromkeys(("storage", "training", "inference"), "UPDATE_COMPLETE")
    assert list(found["endpoint"].values()) == [ENDPOINT, "InService", "ml.m5.large", 1, 1]
    assert found["model"] == {"version": 3, "status": "Approved", "digest": "sha256:" + 12 * "1"}
    assert found["traffic"]["requests_per_s"] == pytest.approx(10000 / 300) and found["traffic"]["worst_p95_ms"] == 6.0
    assert found["function"]["version"] == "4" and found["function"]["warm"] == 1
    assert len(aws.requests["get_metric_data"]) == 1


def test_a_serverless_endpoint_has_memory_and_concurrency():
    aws = sound_account()
    (variant,) = aws.endpoints[ENDPOINT]["ProductionVariants"]
    del variant["InstanceType"]
    variant["ServerlessConfig"] = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
    facts = read_status(sound_stage(aws))["endpoint"]
    assert (facts["memory_mb"], facts["max_concurrency"]) == (2048, 5)


@pytest.mark.parametrize(
    ("section", "operation", "reason"),
    [
        ("traffic", "get_metric_data", "AWS refused"),
        ("cost", "list_provisioned_concurrency_configs", "AWS refused"),
        ("endpoint", None, f"there is no endpoint {ENDPOINT}"),
    ],
)
def test_what_cannot_be_read_says_why_and_is_never_a_figure(section, operation, reason):
    aws = sound_account()
    aws.refused.add(operation)
    if operation is None:
        aws.answers["describe_endpoint"] = nothing
    found = read_status(sound_stage(aws))
    assert found[section].startswith("not known: ") and reason in found[section]
    assert isinstance(found["stacks"], dict)


def test_without_values_there_is_no_latency():
    aws = sound_account()
    aws.answers["get_metric_data"] = lambda MetricDataQueries, **_: {
        "MetricDataResults": [{"Id": each["Id"], "Values": []} for each in MetricDataQueries]
    }
    traffic = read_status(sound_stage(aws))["traffic"]
    assert traffic["worst_p95_ms"] is None and traffic["requests_per_s"] == 0


@pytest.mark.parametrize("deployed", [True, False])
def test_a_screen_and_exit_code_3_where_nothing_answers(kennel, monkeypatch, deployed):
    aws = sound_account()
    if not deployed:
        del aws.stacks[STACK]
    monkeypatch.setattr(main, "Stage", lambda *_: sound_stage(aws))
    code, output = kennel("status")
    assert code == (0 if deployed else 3)
    assert f"inference {'UPDATE_COMPLETE' if deployed else 'not deployed'}" in " ".join(output.split())
    assert len(output.splitlines()) < 24
