"""Attempts to have IAM asked about a resource of one's own while another's is read, changed or deleted."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import botocore.exceptions
import pytest
import urllib3
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from local_aws_harness import LAMBDA_TRUST, LocalAws, function_archive, local_aws, policy, wait_until

ARN = "arn:aws:{}:us-east-1:000000000000:{}"
SOURCE = "def handler(event, context):\n    return 'of the victim'\n"
TEMPLATE = {"Resources": {"It": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "1"}}}}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        iam, s3, logs, build = (made.client(name) for name in ("iam", "s3", "logs", "codebuild"))
        iam.create_role(RoleName="mine", AssumeRolePolicyDocument=json.dumps(LAMBDA_TRUST))
        iam.create_user(UserName="victim")
        s3.create_bucket(Bucket="victim")
        s3.put_bucket_tagging(Bucket="victim", Tagging={"TagSet": [{"Key": "k", "Value": "of the victim"}]})
        for name in ("mine", "victim"):
            made.client("ssm").put_parameter(Name=f"/{name}/p", Value=f"of the {name}", Type="String")
            made.client("sns").create_topic(Name=name)
            logs.create_log_group(logGroupName=name)
            logs.create_log_stream(logGroupName=name, logStreamName="s")
        build.create_project(
            name="victim",
            source={"type": "NO_SOURCE", "buildspec": "version: 0.2"},
            artifacts={"type": "NO_ARTIFACTS"},
            environment={"type": "LINUX_CONTAINER", "image": "i", "computeType": "BUILD_GENERAL1_SMALL"},
            serviceRole="arn:aws:iam::000000000000:role/mine",
        )
        functions = made.client("lambda")
        functions.create_function(
            FunctionName="f",
            Runtime="python3.14",
            Role="arn:aws:iam::000000000000:role/mine",
            Handler="app.handler",
            Code={"ZipFile": function_archive(SOURCE)},
        )
        functions.create_alias(
            FunctionName="f", Name="prod", FunctionVersion=functions.publish_version(FunctionName="f")["Version"]
        )
        yield made


def send(
    aws: LocalAws, method: str, path: str, body: bytes | str, service: str, key: dict[str, str], **headers: str
) -> urllib3.BaseHTTPResponse:
    url = aws.environment["AWS_ENDPOINT_URL"] + path
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = AWSRequest(method, url, data=body, headers=named)
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(Credentials(key["AccessKeyId"], key["SecretAccessKey"]), service, "us-east-1").add_auth(request)
    return urllib3.request(method, url, body=body, headers=dict(request.headers), retries=False, timeout=30)


def form(aws: LocalAws, service: str, key: dict[str, str], **members: str) -> urllib3.BaseHTTPResponse:
    content_type = "application/x-www-form-urlencoded"
    return send(aws, "POST", "/", urlencode(members, quote_via=quote), service, key, content_type=content_type)


def post(aws: LocalAws, service: str, key: dict[str, str], target: str, **members: Any) -> urllib3.BaseHTTPResponse:
    headers = {"x_amz_target": target, "content_type": "application/x-amz-json-1.1"}
    return send(aws, "POST", "/", json.dumps(members), service, key, **headers)


@pytest.mark.parametrize(
    ("service", "resource", "target", "members"),
    [
        ("ssm", "parameter/mine/*", "AmazonSSM.GetParameters", {"Name": "/mine/p", "Names": ["/victim/p"]}),
        ("ssm", "parameter/mine/*", "AmazonSSM.GetParameters", {"Names": ["/mine/p", "/victim/p"]}),
        ("ssm", "parameter/mine/*", "AmazonSSM.GetParametersByPath", {"Name": "/mine/p", "Path": "/victim"}),
        ("ssm", "parameter/mine/*", "AmazonSSM.DeleteParameters", {"Names": ["/mine/p", "/victim/p"]}),
        ("codebuild", "project/mine", "CodeBuild_20161006.UpdateProject", {"projectName": "mine", "name": "victim"}),
        ("codebuild", "project/mine", "CodeBuild_20161006.BatchGetProjects", {"names": ["mine", "victim"]}),
        (
            "logs",
            "log-group:mine*",
            "Logs_20140328.GetLogEvents",
            {"logGroupName": "mine", "logGroupIdentifier": "victim", "logStreamName": "s"},
        ),
        (
            "logs",
            "log-group:mine*",
            "Logs_20140328.StartQuery",
            {"logGroupName": "mine", "logGroupNames": ["victim"], "queryString": "x", "startTime": 0, "endTime": 1},
        ),
    ],
)
def test_members_that_name_another_resource_are_asked_about_or_refused(
    aws: LocalAws, service: str, resource: str, target: str, members: dict[str, Any]
) -> None:
    name = f"{service}-{target.rpartition('.')[2]}-{len(members)}"
    key = aws.user(name, policy({"Action": f"{service}:*", "Resource": ARN.format(service, resource)}))
    answer = post(aws, service, key, target, **members)
    assert (answer.status in (400, 403), b"of the victim" in answer.data) == (True, False), answer.data
    assert aws.client("ssm").get_parameter(Name="/mine/p")["Parameter"]["Value"] == "of the mine"


def test_what_is_all_ones_own_is_allowed(aws: LocalAws) -> None:
    key = aws.user("owner", policy({"Action": "ssm:*", "Resource": ARN.format("ssm", "parameter/mine/*")}))
    answer = post(aws, "ssm", key, "AmazonSSM.GetParameters", Names=["/mine/p", "/mine/p:1"])
    assert (answer.status, b"of the mine" in answer.data) == (200, True)


def test_a_role_of_ones_own_gives_no_power_over_users(aws: LocalAws) -> None:
    key = aws.user("role-owner", policy({"Action": "iam:*", "Resource": "arn:aws:iam::000000000000:role/mine"}))
    document = json.dumps(policy({"Action": "*", "Resource": "*"}))
    for members in (
        {"Action": "PutUserPolicy", "UserName": "role-owner", "PolicyName": "x", "PolicyDocument": document},
        {"Action": "CreateAccessKey", "UserName": "victim"},
        {"Action": "CreateAccessKey", "UserName": "victim", "rolename": "mine"},
    ):
        answer = form(aws, "iam", key, Version="2010-05-08", RoleName="mine", **members)
        assert answer.status in (400, 403), answer.data
    assert aws.client("iam").list_access_keys(UserName="victim")["AccessKeyMetadata"] == []


def test_a_topic_is_named_once(aws: LocalAws) -> None:
    mine, victim = ARN.format("sns", "mine"), ARN.format("sns", "victim")
    key = aws.user("publisher", policy({"Action": "sns:*", "Resource": mine}))
    publish = {"Action": "Publish", "Version": "2010-03-31", "Message": "x"}
    assert form(aws, "sns", key, **publish, TopicArn=mine, TargetArn=victim).status == 400
    assert form(aws, "sns", key, **publish, TopicArn=mine).status == 200


def test_a_change_set_is_that_of_the_stack_which_is_allowed(aws: LocalAws) -> None:
    stacks = aws.client("cloudformation")
    change_set = stacks.create_change_set(
        StackName="victim", ChangeSetName="c", TemplateBody=json.dumps(TEMPLATE), ChangeSetType="CREATE"
    )
    wait_until(lambda: stacks.describe_change_set(ChangeSetName=change_set["Id"])["Status"] == "CREATE_COMPLETE")
    owner = policy({"Action": "cloudformation:*", "Resource": ARN.format("cloudformation", "stack/mine/*")})
    mine = aws.client("cloudformation", aws.user("stack-owner", owner))
    for operation in (mine.execute_change_set, mine.delete_change_set, mine.describe_change_set):
        for names in ({"StackName": "mine"}, {}):
            with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
                operation(ChangeSetName=change_set["Id"], **names)


def test_tags_by_way_of_s3_control_are_those_of_the_bucket_in_the_arn(aws: LocalAws) -> None:
    key = aws.user("tag-reader", policy({"Action": "s3:*", "Resource": "arn:aws:s3:::mine*"}))
    for arn in ("arn:aws:s3:::mine:::victim", "arn:aws-cn:s3:::victim", "arn:aws:s3:::victim", "victim"):
        path = f"/v20180820/tags/{quote(arn, safe='')}"
        answer = send(aws, "GET", path, b"", "s3", key, x_amz_account_id="000000000000")
        assert (answer.status in (400, 403), b"of the victim" in answer.data) == (True, False), arn


def test_objects_are_deleted_as_they_were_asked_about(aws: LocalAws) -> None:
    s3 = aws.client("s3")
    s3.put_bucket_versioning(Bucket="victim", VersioningConfiguration={"Status": "Enabled"})
    versions = {key: s3.put_object(Bucket="victim", Key=key)["VersionId"] for key in ("mine", "other")}
    key = aws.user("deleter", policy({"Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::victim/mine"}))

    def delete(content: str, **headers: str) -> int:
        body = f"<Delete>{content}</Delete>".encode()
        digest = base64.b64encode(hashlib.md5(body).digest()).decode()
        path = "/?delete" if headers else "/victim?delete"
        return send(aws, "POST", path, body, "s3", key, content_md5=digest, **headers).status

    for headers in ({}, {"host": f"victim.s3.localhost:{aws.port}"}):
        for content in (
            "<Object><Key>other</Key><Key>mine</Key></Object>",
            '<Object><Key>other</Key><x:Key xmlns:x="urn:x">mine</x:Key></Object>',
            '<Object xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Key>other</Key></Object>',
            f"<Object><Key>mine</Key><VersionId>{versions['mine']}</VersionId></Object>",
            f"<Object><Key>mine</Key><VersionId/><VersionId>{versions['mine']}</VersionId></Object>",
            "<Object><Key>mine</Key></Object><Object><Key>other</Key></Object>",
        ):
            assert delete(content, **headers) in (400, 403), content
    for name, version in versions.items():
        s3.head_object(Bucket="victim", Key=name, VersionId=version)
    assert delete("<Quiet>true</Quiet><Object><Key>mine</Key></Object>") == 200


def test_a_function_and_its_alias_are_two_resources(aws: LocalAws) -> None:
    arn = ARN.format("lambda", "function:f")
    plain = aws.user("invoker", policy({"Action": "lambda:InvokeFunction", "Resource": arn}))
    alias = aws.user("alias-invoker", policy({"Action": "lambda:InvokeFunction", "Resource": f"{arn}:prod"}))
    denied = policy({"Action": "lambda:*", "Resource": "*"})
    denied["Statement"] += [{"Effect": "Deny", "Action": "lambda:*", "Resource": [arn, f"{arn}:*"]}]
    deny = aws.user("denied-invoker", denied)

    def invoke(key: dict[str, str], name: str, query: str = "") -> int:
        path = f"/2015-03-31/functions/{quote(name, safe='')}/invocations{query}"
        return send(aws, "POST", path, b"{}", "lambda", key).status

    latest = "?Qualifier=%24LATEST"
    assert invoke(plain, "f") == invoke(alias, "f:prod") == invoke(alias, "f", "?Qualifier=prod") == 200
    for key, name, query in (
        (plain, "f:prod", ""),
        (plain, "f", "?Qualifier=prod"),
        (alias, "f", ""),
        (alias, "f", latest),
        (alias, "f:prod", latest),
        (alias, f"{arn}:prod", "?Qualifier=1"),
        (alias, "f", "?Qualifier=prod&Qualifier=1"),
        *((deny, name, "") for name in ("f", "f:prod", arn, arn.replace("aws", "aws-cn", 1))),
    ):
        assert invoke(key, name, query) in (400, 403), (name, query)


def test_a_key_that_is_denied_is_denied_under_every_name(aws: LocalAws) -> None:
    keys = aws.client("kms")
    key_arn = keys.create_key()["KeyMetadata"]["Arn"]
    keys.create_alias(AliasName="alias/victim", TargetKeyId=key_arn)
    document = policy({"Action": "kms:*", "Resource": "*"})
    document["Statement"] += [{"Effect": "Deny", "Action": "kms:*", "Resource": key_arn}]
    user = aws.user("denied-encrypter", document)
    alias_arn = ARN.format("kms", "alias/victim")
    names = [key_arn, key_arn.rpartition("/")[2], "alias/victim", alias_arn]
    for name in [*names, *(name.replace("arn:aws:", "arn:aws-cn:") for name in (key_arn, alias_arn))]:
        answer = post(aws, "kms", user, "TrentService.Encrypt", KeyId=name, Plaintext="eA==")
        assert answer.status in (400, 403), name
    assert post(aws, "kms", user, "TrentService.CreateAlias", AliasName="alias/x", TargetKeyId=key_arn).status == 403
