"""A stack does what its caller or its role may do, and nothing more."""

from __future__ import annotations

import json
from typing import Any

import botocore.exceptions
import pytest
from local_aws_harness import LocalAws, policy, trust, wait_until

STACKS = {"Action": "cloudformation:*", "Resource": "*"}
ON_PARAMETERS = {"Action": "ssm:*", "Resource": "*"}
PARAMETER = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "1"}}
EVERYTHING = policy({"Action": "*", "Resource": "*"})
GRANT = {
    "Type": "AWS::IAM::Policy",
    "Properties": {"PolicyName": "all", "Users": ["climber"], "PolicyDocument": EVERYTHING},
}


def deploy(aws: LocalAws, key: dict[str, str] | None, name: str, resource: dict[str, Any], **options: Any) -> str:
    """How the creation of a stack ends; a refusal at once counts as rolled back."""
    template, client = json.dumps({"Resources": {"It": resource}}), aws.client("cloudformation", key)
    client.create_stack(StackName=name, TemplateBody=template, Capabilities=["CAPABILITY_IAM"], **options)
    return settled(aws, name)


def settled(aws: LocalAws, name: str) -> str:
    stacks = aws.client("cloudformation")

    def status() -> str:
        found = str(stacks.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])
        return "" if found.endswith("_IN_PROGRESS") else found

    return str(wait_until(status))


def test_with_stacks_alone_nobody_gains_rights(aws: LocalAws) -> None:
    key = aws.user("climber", policy(STACKS))
    assert deploy(aws, key, "grant", GRANT) == "ROLLBACK_COMPLETE"
    with pytest.raises(botocore.exceptions.ClientError):
        aws.client("iam", key).list_users()
    events = aws.client("cloudformation").describe_stack_events(StackName="grant")["StackEvents"]
    assert any("iam:CreatePolicy" in event.get("ResourceStatusReason", "") for event in events)
    assert deploy(aws, key, "parameter", PARAMETER) == "ROLLBACK_COMPLETE"


def test_a_stack_acts_with_the_rights_of_its_caller(aws: LocalAws) -> None:
    key = aws.user("stack-caller", policy(STACKS, ON_PARAMETERS))
    assert deploy(aws, key, "by-caller", PARAMETER) == "CREATE_COMPLETE"
    assert deploy(aws, key, "by-caller-grant", GRANT) == "ROLLBACK_COMPLETE"


def test_a_stack_acts_with_the_rights_of_its_role(aws: LocalAws) -> None:
    role = aws.role("deployer", trust("cloudformation.amazonaws.com"), policy(ON_PARAMETERS))
    key = aws.user("stack-passer", policy(STACKS, {"Action": "iam:PassRole", "Resource": role}))
    assert deploy(aws, key, "by-role", PARAMETER, RoleARN=role) == "CREATE_COMPLETE"
    assert deploy(aws, key, "by-role-grant", GRANT, RoleARN=role) == "ROLLBACK_COMPLETE"
    client = aws.client("cloudformation", key)
    request = {"StackName": "changed", "ChangeSetName": "c", "RoleARN": role, "ChangeSetType": "CREATE"}
    client.create_change_set(TemplateBody=json.dumps({"Resources": {"It": PARAMETER}}), **request)
    client.get_waiter("change_set_create_complete").wait(StackName="changed", ChangeSetName="c")
    client.execute_change_set(StackName="changed", ChangeSetName="c")
    assert settled(aws, "changed") == "CREATE_COMPLETE"
    client.delete_stack(StackName="changed")
    client.get_waiter("stack_delete_complete").wait(
        StackName="changed", WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
    )


def test_a_rollback_that_goes_on_asks_again(aws: LocalAws) -> None:
    """Who may not change a parameter back may not have CloudFormation change it back."""
    named = {**PARAMETER, "Properties": {**PARAMETER["Properties"], "Name": "rolling"}}
    changed = {**named, "Properties": {**named["Properties"], "Value": "2"}}
    failing = {
        "Handle": {"Type": "AWS::CloudFormation::WaitConditionHandle"},
        "Failing": {
            "Type": "AWS::CloudFormation::WaitCondition",
            "Properties": {"Handle": {"Ref": "Handle"}, "Timeout": "2"},
            "DependsOn": "It",
        },
    }
    assert deploy(aws, None, "rolling", named) == "CREATE_COMPLETE"
    key = aws.user("rolling-back", policy(STACKS, {"Action": "ssm:PutParameter", "Resource": "*"}))
    client, ssm = aws.client("cloudformation", key), aws.client("ssm")
    client.update_stack(StackName="rolling", TemplateBody=json.dumps({"Resources": {"It": changed, **failing}}))
    wait_until(lambda: ssm.get_parameter(Name="rolling")["Parameter"]["Value"] == "2")
    aws.client("iam").put_user_policy(
        UserName="rolling-back", PolicyName="p", PolicyDocument=json.dumps(policy(STACKS))
    )
    assert settled(aws, "rolling") == "UPDATE_ROLLBACK_FAILED"
    client.continue_update_rollback(StackName="rolling")
    assert settled(aws, "rolling") == "UPDATE_ROLLBACK_FAILED"
    assert ssm.get_parameter(Name="rolling")["Parameter"]["Value"] == "2"
    aws.client("cloudformation").continue_update_rollback(StackName="rolling")
    assert settled(aws, "rolling") == "UPDATE_ROLLBACK_COMPLETE"
    assert ssm.get_parameter(Name="rolling")["Parameter"]["Value"] == "1"


def test_stack_sets_are_refused(aws: LocalAws) -> None:
    stacks = aws.client("cloudformation")
    body = json.dumps({"Resources": {"It": {"Type": "AWS::CloudFormation::StackSet", "Properties": {}}}})
    with pytest.raises(botocore.exceptions.ClientError, match=r"Unrecognized resource types.*StackSet"):
        stacks.create_stack(StackName="set", TemplateBody=body)
    with pytest.raises(botocore.exceptions.ClientError, match="CreateStackSet"):
        stacks.create_stack_set(StackSetName="s", TemplateBody="{}")


def test_what_a_template_refers_to_is_read_with_the_rights_of_its_caller(aws: LocalAws) -> None:
    aws.client("secretsmanager").create_secret(Name="referred", SecretString="hidden")
    aws.client("ssm").put_parameter(Name="referred", Value="hidden", Type="SecureString")
    allowed = policy({"Action": ["cloudformation:*", "ssm:PutParameter", "ssm:DeleteParameter"], "Resource": "*"})
    key = aws.user("referrer", allowed)
    for number, reference in enumerate(("secretsmanager:referred", "ssm-secure:referred", "ssm:referred")):
        copy = {**PARAMETER, "Properties": {"Type": "String", "Value": f"{{{{resolve:{reference}}}}}"}}
        assert deploy(aws, key, f"referring-{number}", copy) == "ROLLBACK_COMPLETE"
        assert deploy(aws, None, f"referring-allowed-{number}", copy) == "CREATE_COMPLETE"
