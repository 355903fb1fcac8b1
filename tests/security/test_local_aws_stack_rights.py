"""A stack does what its caller or its role may do, and nothing more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pytest
from local_aws_harness import LocalAws, local_aws, policy, trust

STACKS = {"Action": "cloudformation:*", "Resource": "*"}
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
PARAMETER = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "1"}}
GRANT = {
    "Type": "AWS::IAM::Policy",
    "Properties": {"PolicyName": "all", "Users": ["climber"], "PolicyDocument": EVERYTHING},
}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        yield made


def deploy(aws: LocalAws, key: dict[str, str] | None, name: str, resource: dict[str, Any], **options: Any) -> str:
    client = aws.client("cloudformation", key)
    template = json.dumps({"Resources": {"It": resource}})
    client.create_stack(StackName=name, TemplateBody=template, Capabilities=["CAPABILITY_IAM"], **options)
    return settled(aws, name)


def settled(aws: LocalAws, name: str) -> str:
    waiter = aws.client("cloudformation").get_waiter("stack_create_complete")
    try:
        waiter.wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    except botocore.exceptions.WaiterError as error:
        return str(error.last_response["Stacks"][0]["StackStatus"])
    return "CREATE_COMPLETE"


def test_with_stacks_alone_nobody_gains_rights(aws: LocalAws) -> None:
    key = aws.user("climber", policy(STACKS))
    assert deploy(aws, key, "grant", GRANT) == "ROLLBACK_COMPLETE"
    with pytest.raises(botocore.exceptions.ClientError):
        aws.client("iam", key).list_users()
    events = aws.client("cloudformation").describe_stack_events(StackName="grant")["StackEvents"]
    assert any("iam:CreatePolicy" in event.get("ResourceStatusReason", "") for event in events)
    assert deploy(aws, key, "parameter", PARAMETER) == "ROLLBACK_COMPLETE"


def test_a_stack_acts_with_the_rights_of_its_caller(aws: LocalAws) -> None:
    key = aws.user("caller", policy(STACKS, {"Action": "ssm:*", "Resource": "*"}))
    assert deploy(aws, key, "own", PARAMETER) == "CREATE_COMPLETE"
    assert deploy(aws, key, "own-grant", GRANT) == "ROLLBACK_COMPLETE"


def test_a_stack_acts_with_the_rights_of_its_role(aws: LocalAws) -> None:
    may = {"Statement": [{"Effect": "Allow", "Action": "ssm:*", "Resource": "*"}], "Version": "2012-10-17"}
    role = aws.role("deployer", trust("cloudformation.amazonaws.com"), may)
    key = aws.user("passer", policy(STACKS, {"Action": "iam:PassRole", "Resource": role}))
    assert deploy(aws, key, "by-role", PARAMETER, RoleARN=role) == "CREATE_COMPLETE"
    assert deploy(aws, key, "by-role-grant", GRANT, RoleARN=role) == "ROLLBACK_COMPLETE"
    client = aws.client("cloudformation", key)
    request = {"StackName": "changed", "ChangeSetName": "c", "RoleARN": role, "ChangeSetType": "CREATE"}
    client.create_change_set(TemplateBody=json.dumps({"Resources": {"It": PARAMETER}}), **request)
    client.get_waiter("change_set_create_complete").wait(StackName="changed", ChangeSetName="c")
    client.execute_change_set(StackName="changed", ChangeSetName="c")
    assert settled(aws, "changed") == "CREATE_COMPLETE"
    client.delete_stack(StackName="changed")
    client.get_waiter("stack_delete_complete").wait(StackName="changed", WaiterConfig={"Delay": 1})
