"""A stack does what its caller or its role may do, and nothing more; nor does any service read for its caller."""

from __future__ import annotations

import json
from typing import Any

import botocore.exceptions
import pytest
from local_aws_harness import LAMBDA_TRUST, QUICKLY, LocalAws, function_archive, policy, refused, trust
from waiting import wait_until

STACKS = {"Action": "cloudformation:*", "Resource": "*"}
ON_PARAMETERS = {"Action": "ssm:*", "Resource": "*"}
PARAMETER = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "1"}}
EVERYTHING = policy({"Action": "*", "Resource": "*"})
GRANT = {
    "Type": "AWS::IAM::Policy",
    "Properties": {"PolicyName": "all", "Users": ["climber"], "PolicyDocument": EVERYTHING},
}


def template(**resources: Any) -> dict[str, Any]:
    return {"Resources": resources}


def status(aws: LocalAws, key: dict[str, str] | None, name: str, resource: dict[str, Any], **options: Any) -> str:
    """How the creation of a stack ends."""
    return str(aws.deploy(name, template(It=resource), key=key, **options)["StackStatus"])


def test_a_stack_acts_with_the_rights_of_its_caller(aws: LocalAws) -> None:
    """With stacks alone nobody gains rights."""
    key = aws.user("climber", policy(STACKS, ON_PARAMETERS))
    assert status(aws, key, "by-caller", PARAMETER) == "CREATE_COMPLETE"
    grant = aws.deploy("by-caller-grant", template(It=GRANT), key=key)
    assert (grant["StackStatus"], "iam:CreatePolicy" in grant["Reasons"]) == ("ROLLBACK_COMPLETE", True)
    with pytest.raises(botocore.exceptions.ClientError):
        aws.client("iam", key).list_users()


def test_a_stack_acts_with_the_rights_of_its_role(aws: LocalAws) -> None:
    role = aws.role("deployer", trust("cloudformation.amazonaws.com"), policy(ON_PARAMETERS))
    key = aws.user("stack-passer", policy(STACKS, {"Action": "iam:PassRole", "Resource": role}))
    assert status(aws, key, "by-role-grant", GRANT, RoleARN=role) == "ROLLBACK_COMPLETE"
    client = aws.client("cloudformation", key)
    request = {"StackName": "changed", "ChangeSetName": "c", "RoleARN": role, "ChangeSetType": "CREATE"}
    client.create_change_set(TemplateBody=json.dumps(template(It=PARAMETER)), **request)
    client.get_waiter("change_set_create_complete").wait(StackName="changed", ChangeSetName="c", WaiterConfig=QUICKLY)
    client.execute_change_set(StackName="changed", ChangeSetName="c")
    changed = aws.stack("changed")
    assert changed["StackStatus"] == "CREATE_COMPLETE"
    client.delete_stack(StackName="changed")
    assert aws.stack(changed["StackId"])["StackStatus"] == "DELETE_COMPLETE"


def test_a_stack_keeps_a_role_within_its_boundary(aws: LocalAws) -> None:
    limit = policy({"Action": "s3:ListAllMyBuckets", "Resource": "*"})
    arn = aws.iam.create_policy(PolicyName="limit", PolicyDocument=json.dumps(limit))["Policy"]["Arn"]
    within = {"StringEquals": {"iam:PermissionsBoundary": arn}}
    # As IAM's user guide delegates ("Permissions boundaries for IAM entities"): whatever knows the key.
    roles = {"NotAction": "iam:DeleteRolePermissionsBoundary", "Resource": "*", "Condition": within}
    creator = aws.user("creator", policy(STACKS, roles))
    other = aws.iam.create_policy(PolicyName="wide", PolicyDocument=json.dumps(EVERYTHING))["Policy"]["Arn"]

    def bounded(**boundary: str) -> dict[str, Any]:
        trusted = policy({"Principal": {"AWS": "000000000000"}, "Action": "sts:AssumeRole"})
        policies = [{"PolicyName": "all", "PolicyDocument": EVERYTHING}]
        properties = {"RoleName": "bounded", "AssumeRolePolicyDocument": trusted, "Policies": policies}
        return {"Type": "AWS::IAM::Role", "Properties": {**properties, **boundary}}

    assert status(aws, creator, "without-boundary", bounded()) == "ROLLBACK_COMPLETE"
    refused_one = aws.deploy("no-such-boundary", template(It=bounded(PermissionsBoundary=f"{arn}less")))
    assert "does not exist or is not attachable" in refused_one["Reasons"]
    assert status(aws, creator, "bounded", bounded(PermissionsBoundary=arn)) == "CREATE_COMPLETE"
    iam = aws.client("iam", creator)
    free = {
        "RoleName": "free",
        "AssumeRolePolicyDocument": json.dumps(bounded()["Properties"]["AssumeRolePolicyDocument"]),
    }
    for boundary in ({}, {"PermissionsBoundary": other}):
        refused(iam.create_role, "AccessDenied", **free, **boundary)
        assert status(aws, creator, "bounded", bounded(**boundary), update=True) == "UPDATE_ROLLBACK_COMPLETE"
    iam.create_role(**free, PermissionsBoundary=arn)
    iam.put_role_permissions_boundary(RoleName="free", PermissionsBoundary=arn)
    allowing = {"RoleName": "free", "PolicyName": "all", "PolicyDocument": json.dumps(EVERYTHING)}
    iam.put_role_policy(**allowing)
    refused(iam.put_role_permissions_boundary, "AccessDenied", RoleName="free", PermissionsBoundary=other)
    refused(iam.delete_role_permissions_boundary, "AccessDenied", RoleName="free")
    refused(iam.tag_role, "AccessDenied", RoleName="free", Tags=[])  # does not know the key
    aws.iam.delete_role_permissions_boundary(RoleName="free")
    refused(iam.put_role_policy, "AccessDenied", **allowing)
    user = aws.client("sts", aws.user("in-bounds", policy({"Action": "sts:AssumeRole", "Resource": "*"})))
    role = {"RoleArn": "arn:aws:iam::000000000000:role/bounded", "RoleSessionName": "session"}
    session = user.assume_role(**role)["Credentials"]
    s3 = aws.client("s3", session)
    s3.list_buckets()
    refused(s3.create_bucket, "AccessDenied", Bucket="beyond")
    refused(aws.client("iam", session).delete_role_permissions_boundary, "AccessDenied", RoleName="bounded")
    assert status(aws, None, "bounded", bounded(), update=True) == "UPDATE_COMPLETE"
    s3.create_bucket(Bucket="beyond")


def test_a_rollback_that_goes_on_asks_again(aws: LocalAws) -> None:
    """Who may not change a parameter back may not have CloudFormation change it back."""
    named = {**PARAMETER, "Properties": {**PARAMETER["Properties"], "Name": "rolling"}}
    changed = {**named, "Properties": {**named["Properties"], "Value": "2"}}
    properties = {"Handle": {"Ref": "Handle"}, "Timeout": "2"}
    failing = {
        "Handle": {"Type": "AWS::CloudFormation::WaitConditionHandle"},
        "Fail": {"Type": "AWS::CloudFormation::WaitCondition", "Properties": properties, "DependsOn": "It"},
    }
    assert status(aws, None, "rolling", named) == "CREATE_COMPLETE"
    key = aws.user("rolling-back", policy(STACKS, {"Action": "ssm:PutParameter", "Resource": "*"}))
    client, ssm = aws.client("cloudformation", key), aws.client("ssm")
    client.update_stack(StackName="rolling", TemplateBody=json.dumps(template(It=changed, **failing)))
    wait_until(lambda: ssm.get_parameter(Name="rolling")["Parameter"]["Value"] == "2")
    only_stacks = {"UserName": "rolling-back", "PolicyName": "p", "PolicyDocument": json.dumps(policy(STACKS))}
    aws.iam.put_user_policy(**only_stacks)
    assert aws.stack("rolling")["StackStatus"] == "UPDATE_ROLLBACK_FAILED"
    client.continue_update_rollback(StackName="rolling")
    assert aws.stack("rolling")["StackStatus"] == "UPDATE_ROLLBACK_FAILED"
    assert ssm.get_parameter(Name="rolling")["Parameter"]["Value"] == "2"
    aws.cloudformation.continue_update_rollback(StackName="rolling")
    assert aws.stack("rolling")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert ssm.get_parameter(Name="rolling")["Parameter"]["Value"] == "1"


@pytest.mark.parametrize("service", ["ssm-secure", "ssm"])
def test_what_a_template_refers_to_is_read_with_the_rights_of_its_caller(aws: LocalAws, service: str) -> None:
    name = f"referred-by-{service}"
    aws.client("ssm").put_parameter(Name=name, Value="hidden", Type="SecureString")
    allowed = policy({"Action": ["cloudformation:*", "ssm:PutParameter", "ssm:DeleteParameter"], "Resource": "*"})
    resolved = f"{{{{resolve:{service}:{name}}}}}"
    copy = {**PARAMETER, "Properties": {"Type": "String", "Value": resolved}}
    assert status(aws, aws.user(name, allowed), f"refused-{name}", copy) == "ROLLBACK_COMPLETE"
    assert status(aws, None, f"allowed-{name}", copy) == "CREATE_COMPLETE"


def test_templates_and_code_are_read_with_the_callers_rights(aws: LocalAws) -> None:
    s3, bucket = aws.s3, "sealed-from-services"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="t.json", Body=json.dumps(template(Group={"Type": "AWS::Logs::LogGroup"})))
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
        refused(getattr(aws.client(service, thief), operation), refusal, **request)
        getattr(aws.client(service, reader), operation)(**request)
