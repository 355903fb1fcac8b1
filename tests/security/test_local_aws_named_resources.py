"""Attempts to have IAM asked about a resource of one's own while another's is read, changed or deleted."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any
from urllib.parse import quote, urlencode

import botocore.exceptions
import pytest
import urllib3
from local_aws_harness import LAMBDA_TRUST, LocalAws, policy, wait_until

ARN = "arn:aws:{}:us-east-1:000000000000:{}"
TEMPLATE = {"Resources": {"It": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "1"}}}}


@pytest.fixture(scope="module", autouse=True)
def things(aws: LocalAws) -> None:
    """Resources of two owners."""
    role = aws.role("own", LAMBDA_TRUST)
    aws.client("iam").create_user(UserName="other")
    aws.client("s3").create_bucket(Bucket="other")
    aws.client("s3").put_bucket_tagging(Bucket="other", Tagging={"TagSet": [{"Key": "k", "Value": "of the other"}]})
    for name in ("own", "other"):
        aws.client("ssm").put_parameter(Name=f"/{name}/p", Value=f"of the {name}", Type="String")
        aws.client("sns").create_topic(Name=name)
        aws.client("logs").create_log_group(logGroupName=name)
        aws.client("logs").create_log_stream(logGroupName=name, logStreamName="s")
    aws.client("codebuild").create_project(
        name="other",
        source={"type": "NO_SOURCE", "buildspec": "version: 0.2"},
        artifacts={"type": "NO_ARTIFACTS"},
        environment={"type": "LINUX_CONTAINER", "image": "i", "computeType": "BUILD_GENERAL1_SMALL"},
        serviceRole=role,
    )
    aws.function("aliased", "def handler(event, context):\n    return 'of the other'\n")
    functions = aws.client("lambda")
    version = functions.publish_version(FunctionName="aliased")["Version"]
    functions.create_alias(FunctionName="aliased", Name="prod", FunctionVersion=version)


def form(aws: LocalAws, service: str, key: dict[str, str], **members: str) -> urllib3.BaseHTTPResponse:
    content_type = "application/x-www-form-urlencoded"
    return aws.send("POST", "/", urlencode(members, quote_via=quote), sign=service, key=key, content_type=content_type)


def post(aws: LocalAws, service: str, key: dict[str, str], target: str, **members: Any) -> urllib3.BaseHTTPResponse:
    headers = {"x_amz_target": target, "content_type": "application/x-amz-json-1.1"}
    return aws.send("POST", "/", json.dumps(members), sign=service, key=key, **headers)


@pytest.mark.parametrize(
    ("service", "resource", "target", "members"),
    [
        ("ssm", "parameter/own/*", "AmazonSSM.GetParameters", {"Name": "/own/p", "Names": ["/other/p"]}),
        ("ssm", "parameter/own/*", "AmazonSSM.GetParameters", {"Names": ["/own/p", "/other/p"]}),
        ("ssm", "parameter/own/*", "AmazonSSM.GetParametersByPath", {"Name": "/own/p", "Path": "/other"}),
        ("ssm", "parameter/own/*", "AmazonSSM.DeleteParameters", {"Names": ["/own/p", "/other/p"]}),
        ("codebuild", "project/own", "CodeBuild_20161006.UpdateProject", {"projectName": "own", "name": "other"}),
        ("codebuild", "project/own", "CodeBuild_20161006.BatchGetProjects", {"names": ["own", "other"]}),
        (
            "logs",
            "log-group:own*",
            "Logs_20140328.GetLogEvents",
            {"logGroupName": "own", "logGroupIdentifier": "other", "logStreamName": "s"},
        ),
        (
            "logs",
            "log-group:own*",
            "Logs_20140328.StartQuery",
            {"logGroupName": "own", "logGroupNames": ["other"], "queryString": "x", "startTime": 0, "endTime": 1},
        ),
    ],
)
def test_members_that_name_another_resource_are_asked_about_or_refused(
    aws: LocalAws, service: str, resource: str, target: str, members: dict[str, Any]
) -> None:
    name = f"{service}-{target.rpartition('.')[2]}-{len(members)}"
    key = aws.user(name, policy({"Action": f"{service}:*", "Resource": ARN.format(service, resource)}))
    answer = post(aws, service, key, target, **members)
    assert (answer.status in (400, 403), b"of the other" in answer.data) == (True, False), answer.data
    assert aws.client("ssm").get_parameter(Name="/own/p")["Parameter"]["Value"] == "of the own"


def test_what_is_all_ones_own_is_allowed(aws: LocalAws) -> None:
    key = aws.user("owner", policy({"Action": "ssm:*", "Resource": ARN.format("ssm", "parameter/own/*")}))
    answer = post(aws, "ssm", key, "AmazonSSM.GetParameters", Names=["/own/p", "/own/p:1"])
    assert (answer.status, b"of the own" in answer.data) == (200, True)


def test_a_role_of_ones_own_gives_no_power_over_users(aws: LocalAws) -> None:
    key = aws.user("role-owner", policy({"Action": "iam:*", "Resource": "arn:aws:iam::000000000000:role/own"}))
    document = json.dumps(policy({"Action": "*", "Resource": "*"}))
    for members in (
        {"Action": "PutUserPolicy", "UserName": "role-owner", "PolicyName": "x", "PolicyDocument": document},
        {"Action": "CreateAccessKey", "UserName": "other"},
        {"Action": "CreateAccessKey", "UserName": "other", "rolename": "own"},
    ):
        answer = form(aws, "iam", key, Version="2010-05-08", RoleName="own", **members)
        assert answer.status in (400, 403), answer.data
    assert aws.client("iam").list_access_keys(UserName="other")["AccessKeyMetadata"] == []


def test_a_topic_is_named_once(aws: LocalAws) -> None:
    own, other = ARN.format("sns", "own"), ARN.format("sns", "other")
    key = aws.user("publisher", policy({"Action": "sns:*", "Resource": own}))
    publish = {"Action": "Publish", "Version": "2010-03-31", "Message": "x"}
    assert form(aws, "sns", key, **publish, TopicArn=own, TargetArn=other).status == 400
    assert form(aws, "sns", key, **publish, TopicArn=own).status == 200


def test_a_change_set_is_that_of_the_stack_which_is_allowed(aws: LocalAws) -> None:
    stacks = aws.client("cloudformation")
    change_set = stacks.create_change_set(
        StackName="other", ChangeSetName="c", TemplateBody=json.dumps(TEMPLATE), ChangeSetType="CREATE"
    )
    wait_until(lambda: stacks.describe_change_set(ChangeSetName=change_set["Id"])["Status"] == "CREATE_COMPLETE")
    document = policy({"Action": "cloudformation:*", "Resource": ARN.format("cloudformation", "stack/own/*")})
    owner = aws.client("cloudformation", aws.user("stack-owner", document))
    for operation in (owner.execute_change_set, owner.delete_change_set, owner.describe_change_set):
        for names in ({"StackName": "own"}, {}):
            with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
                operation(ChangeSetName=change_set["Id"], **names)


def test_tags_by_way_of_s3_control_are_those_of_the_bucket_in_the_arn(aws: LocalAws) -> None:
    key = aws.user("tag-reader", policy({"Action": "s3:*", "Resource": "arn:aws:s3:::own*"}))
    for arn in ("arn:aws:s3:::own:::other", "arn:aws-cn:s3:::other", "arn:aws:s3:::other", "other"):
        path = f"/v20180820/tags/{quote(arn, safe='')}"
        answer = aws.send("GET", path, sign="s3", key=key, x_amz_account_id="000000000000")
        assert (answer.status in (400, 403), b"of the other" in answer.data) == (True, False), arn


def test_objects_are_deleted_as_they_were_asked_about(aws: LocalAws) -> None:
    s3 = aws.client("s3")
    s3.put_bucket_versioning(Bucket="other", VersioningConfiguration={"Status": "Enabled"})
    versions = {key: s3.put_object(Bucket="other", Key=key)["VersionId"] for key in ("own", "other")}
    key = aws.user("deleter", policy({"Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::other/own"}))

    def delete(content: str, **headers: str) -> int:
        body = f"<Delete>{content}</Delete>".encode()
        digest = base64.b64encode(hashlib.md5(body).digest()).decode()
        path = "/?delete" if headers else "/other?delete"
        return aws.send("POST", path, body, sign="s3", key=key, content_md5=digest, **headers).status

    for headers in ({}, {"host": f"other.s3.localhost:{aws.port}"}):
        for content in (
            "<Object><Key>other</Key><Key>own</Key></Object>",
            '<Object><Key>other</Key><x:Key xmlns:x="urn:x">own</x:Key></Object>',
            '<Object xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Key>other</Key></Object>',
            f"<Object><Key>own</Key><VersionId>{versions['own']}</VersionId></Object>",
            f"<Object><Key>own</Key><VersionId/><VersionId>{versions['own']}</VersionId></Object>",
            "<Object><Key>own</Key></Object><Object><Key>other</Key></Object>",
        ):
            assert delete(content, **headers) in (400, 403), content
    for name, version in versions.items():
        s3.head_object(Bucket="other", Key=name, VersionId=version)
    assert delete("<Quiet>true</Quiet><Object><Key>own</Key></Object>") == 200


def test_a_function_and_its_alias_are_two_resources(aws: LocalAws) -> None:
    arn = ARN.format("lambda", "function:aliased")
    plain = aws.user("invoker", policy({"Action": "lambda:InvokeFunction", "Resource": arn}))
    alias = aws.user("alias-invoker", policy({"Action": "lambda:InvokeFunction", "Resource": f"{arn}:prod"}))
    denied = policy({"Action": "lambda:*", "Resource": "*"})
    denied["Statement"] += [{"Effect": "Deny", "Action": "lambda:*", "Resource": [arn, f"{arn}:*"]}]
    deny = aws.user("denied-invoker", denied)

    def invoke(key: dict[str, str], name: str, query: str = "") -> int:
        path = f"/2015-03-31/functions/{quote(name, safe='')}/invocations{query}"
        return aws.send("POST", path, b"{}", sign="lambda", key=key).status

    latest = "?Qualifier=%24LATEST"
    assert (
        invoke(plain, "aliased") == invoke(alias, "aliased:prod") == invoke(alias, "aliased", "?Qualifier=prod") == 200
    )
    for key, name, query in (
        (plain, "aliased:prod", ""),
        (plain, "aliased", "?Qualifier=prod"),
        (alias, "aliased", ""),
        (alias, "aliased", latest),
        (alias, "aliased:prod", latest),
        (alias, f"{arn}:prod", "?Qualifier=1"),
        (alias, "aliased", "?Qualifier=prod&Qualifier=1"),
        *((deny, name, "") for name in ("aliased", "aliased:prod", arn, arn.replace("aws", "aws-cn", 1))),
    ):
        assert invoke(key, name, query) in (400, 403), (name, query)


def test_a_key_that_is_denied_is_denied_under_every_name(aws: LocalAws) -> None:
    keys = aws.client("kms")
    key_arn = keys.create_key()["KeyMetadata"]["Arn"]
    keys.create_alias(AliasName="alias/other", TargetKeyId=key_arn)
    document = policy({"Action": "kms:*", "Resource": "*"})
    document["Statement"] += [{"Effect": "Deny", "Action": "kms:*", "Resource": key_arn}]
    user = aws.user("denied-encrypter", document)
    alias_arn = ARN.format("kms", "alias/other")
    names = [key_arn, key_arn.rpartition("/")[2], "alias/other", alias_arn]
    for name in [*names, *(name.replace("arn:aws:", "arn:aws-cn:") for name in (key_arn, alias_arn))]:
        answer = post(aws, "kms", user, "TrentService.Encrypt", KeyId=name, Plaintext="eA==")
        assert answer.status in (400, 403), name
    assert post(aws, "kms", user, "TrentService.CreateAlias", AliasName="alias/x", TargetKeyId=key_arn).status == 403
