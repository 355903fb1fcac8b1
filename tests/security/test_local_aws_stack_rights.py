"""A stack does what its caller or its role may do, and nothing more; nor does any service read for its caller."""

from __future__ import annotations

import json
from typing import Any

import botocore.exceptions
import pytest
from local_aws_harness import LAMBDA_TRUST, LocalAws, function_archive, policy, trust
from waiting import wait_until

STACKS = {"Action": "cloudformation:*", "Resource": "*"}
ON_PARAMETERS = {"Action": "ssm:*", "Resource": "*"}
PARAMETER = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "1"}}
EVERYTHING = policy({"Action": "*", "Resource": "*"})
GRANT = {
    "Type": "AWS::IAM::Policy",
    "Properties": {"PolicyName": "all", "Users": ["climber"], "PolicyDocument": EVERYTHING},
}


def template(**resources: Any) -> str:
    return json.dumps({"Resources": resources})


def deploy(aws: LocalAws, key: dict[str, str] | None, name: str, resource: dict[str, Any], **options: Any) -> str:
    """How the creation of a stack ends."""
    client = aws.client("cloudformation", key)
    client.create_stack(StackName=name, TemplateBody=template(It=resource), Capabilities=["CAPABILITY_IAM"], **options)
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


def test_a_stack_acts_with_the_rights_of_its_caller(aws: LocalAws) -> None:
    key = aws.user("stack-caller", policy(STACKS, ON_PARAMETERS))
    assert deploy(aws, key, "by-caller", PARAMETER) == "CREATE_COMPLETE"
    assert deploy(aws, key, "by-caller-grant", GRANT) == "ROLLBACK_COMPLETE"


def test_a_stack_acts_with_the_rights_of_its_role(aws: LocalAws) -> None:
    role = aws.role("deployer", trust("cloudformation.amazonaws.com"), policy(ON_PARAMETERS))
    key = aws.user("stack-passer", policy(STACKS, {"Action": "iam:PassRole", "Resource": role}))
    assert deploy(aws, key, "by-role-grant", GRANT, RoleARN=role) == "ROLLBACK_COMPLETE"
    client = aws.client("cloudformation", key)
    request = {"StackName": "changed", "ChangeSetName": "c", "RoleARN": role, "ChangeSetType": "CREATE"}
    client.create_change_set(TemplateBody=template(It=PARAMETER), **request)
    client.get_waiter("change_set_create_complete").wait(StackName="changed", ChangeSetName="c")
    client.execute_change_set(StackName="changed", ChangeSetName="c")
    assert settled(aws, "changed") == "CREATE_COMPLETE"
    client.delete_stack(StackName="changed")
    quickly = {"Delay": 0.1, "MaxAttempts": 600}
    client.get_waiter("stack_delete_complete").wait(StackName="changed", WaiterConfig=quickly)


def test_a_rollback_that_goes_on_asks_again(aws: LocalAws) -> None:
    """Who may not change a parameter back may not have CloudFormation change it back."""
    named = {**PARAMETER, "Properties": {**PARAMETER["Properties"], "Name": "rolling"}}
    changed = {**named, "Properties": {**named["Properties"], "Value": "2"}}
    properties = {"Handle": {"Ref": "Handle"}, "Timeout": "2"}
    failing = {
        "Handle": {"Type": "AWS::CloudFormation::WaitConditionHandle"},
        "Fail": {"Type": "AWS::CloudFormation::WaitCondition", "Properties": properties, "DependsOn": "It"},
    }
    assert deploy(aws, None, "rolling", named) == "CREATE_COMPLETE"
    key = aws.user("rolling-back", policy(STACKS, {"Action": "ssm:PutParameter", "Resource": "*"}))
    client, ssm = aws.client("cloudformation", key), aws.client("ssm")
    client.update_stack(StackName="rolling", TemplateBody=template(It=changed, **failing))
    wait_until(lambda: ssm.get_parameter(Name="rolling")["Parameter"]["Value"] == "2")
    only_stacks = {"UserName": "rolling-back", "PolicyName": "p", "PolicyDocument": json.dumps(policy(STACKS))}
    aws.client("iam").put_user_policy(**only_stacks)
    assert settled(aws, "rolling") == "UPDATE_ROLLBACK_FAILED"
    client.continue_update_rollback(StackName="rolling")
    assert settled(aws, "rolling") == "UPDATE_ROLLBACK_FAILED"
    assert ssm.get_parameter(Name="rolling")["Parameter"]["Value"] == "2"
    aws.client("cloudformation").continue_update_rollback(StackName="rolling")
    assert settled(aws, "rolling") == "UPDATE_ROLLBACK_COMPLETE"
    assert ssm.get_parameter(Name="rolling")["Parameter"]["Value"] == "1"


@pytest.mark.parametrize("service", ["ssm-secure", "ssm"])
def test_what_a_template_refers_to_is_read_with_the_rights_of_its_caller(aws: LocalAws, service: str) -> None:
    name = f"referred-by-{service}"
    aws.client("ssm").put_parameter(Name=name, Value="hidden", Type="SecureString")
    allowed = policy({"Action": ["cloudformation:*", "ssm:PutParameter", "ssm:DeleteParameter"], "Resource": "*"})
    resolved = f"{{{{resolve:{service}:{name}}}}}"
    copy = {**PARAMETER, "Properties": {"Type": "String", "Value": resolved}}
    assert deploy(aws, aws.user(name, allowed), f"refused-{name}", copy) == "ROLLBACK_COMPLETE"
    assert deploy(aws, None, f"allowed-{name}", copy) == "CREATE_COMPLETE"


def test_templates_and_code_are_read_with_the_callers_rights(aws: LocalAws) -> None:
    s3, bucket = aws.client("s3"), "sealed-from-services"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="t.json", Body=template(Group={"Type": "AWS::Logs::LogGroup"}))
    s3.put_object(Bucket=bucket, Key="f.zip", Body=function_archive("def handler(*_): pass"))
    url = {"TemplateURL": f"https://s3.us-east-1.amazonaws.com/{bucket}/t.json"}
    function = {"Runtime": "python3.14", "Handler": "app.handler", "Role": aws.role("code-role", LAMBDA_TRUST)}
    function |= {"FunctionName": "code", "Code": {"S3Bucket": bucket, "S3Key": "f.zip"}}
    all_but_s3 = {"Action": ["cloudformation:*", "logs:*", "lambda:*", "iam:PassRole"], "Resource": "*"}
    reading = {"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    thief, reader = aws.user("thief", policy(all_but_s3)), aws.user("reader", policy(all_but_s3, reading))
    for service, operation, request, refusal in (
        ("cloudformation", "create_stack", {"StackName": "read-by-url", **url}, "perform: s3:GetObject"),
        ("cloudformation", "validate_template", url, "perform: s3:GetObject"),
        ("lambda", "create_function", function, "AccessDenied"),
    ):
        with pytest.raises(botocore.exceptions.ClientError, match=refusal):
            getattr(aws.client(service, thief), operation)(**request)
        getattr(aws.client(service, reader), operation)(**request)
