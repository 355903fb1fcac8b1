"""A table of requests by which somebody does more than they may: each is refused, and nothing has happened."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from attack_targets import OBJECTS, SECRET, account, make_targets
from local_aws_harness import LocalAws, policy

Statement = dict[str, Any]
Request = dict[str, Any]
ACCOUNT = "arn:aws:{}:us-east-1:000000000000:{}"
FUNCTION = ACCOUNT.format("lambda", "function:victim")


@pytest.fixture(scope="module")
def names(aws: LocalAws) -> dict[str, str]:
    return make_targets(aws)


@pytest.fixture(scope="module")
def before(aws: LocalAws, names: dict[str, str]) -> list[Any]:
    return account(aws)


def allow(actions: str | list[str], *resources: str, **more: Any) -> Statement:
    return {"Action": actions, "Resource": list(resources) or "*", **more}


def deny(actions: str, *resources: str) -> Statement:
    return allow(actions, *resources, Effect="Deny")


def arn(service: str, resource: str) -> str:
    return ACCOUNT.format(service, resource)


def objects(actions: str | list[str], *keys: str) -> Statement:
    return allow(actions, *(f"arn:aws:s3:::victim/{key}" for key in keys))


def rest(sign: str, method: str, path: str, body: bytes | str = b"", **options: Any) -> Request:
    return {"sign": sign or None, "method": method, "path": path, "body": body, **options}


def form(sign: str, path: str = "/", body: str | None = None, **members: str) -> Request:
    content_type = "application/x-www-form-urlencoded"
    text = urlencode(members, quote_via=quote) if body is None else body
    return rest(sign, "POST", path, text, content_type=content_type)


def post(sign: str, target: str, path: str = "/", **members: Any) -> Request:
    headers = {"x_amz_target": target, "content_type": "application/x-amz-json-1.1"}
    return rest(sign, "POST", path, json.dumps(members), **headers)


def invoke(name: str, query: str = "") -> Request:
    return rest("lambda", "POST", f"/2015-03-31/functions/{quote(name, safe='')}/invocations{query}", b"{}")


def deletion(content: str, path: str = "/victim?delete") -> Request:
    return rest("s3", "POST", path, f"<Delete>{content}</Delete>")


def two_ways(method: str, key: str, **headers: str) -> list[Request]:
    """To an object: signed in a header, and in a presigned URL."""
    return [rest("s3", method, f"/victim/{key}", in_query=seconds, **headers) for seconds in (0, 60)]


VERBS = (("List", "GET"), ("Create", "PUT"), ("Delete", "DELETE"))
FUNCTIONS = "/2015-03-31/functions"
METRICS = "/service/GraniteServiceVersion20100801/operation"
CONTENTS = [
    "<Object><Key>pub//a</Key><Key>pub/a</Key></Object>",
    '<Object><Key>pub//a</Key><x:Key xmlns:x="urn:x">pub/a</x:Key></Object>',
    '<Object xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Key>pub//a</Key></Object>',
    "<Object><Key>pub/a</Key><VersionId>VERSION</VersionId></Object>",
    "<Object><Key>pub/a</Key><VersionId/><VersionId>VERSION</VersionId></Object>",
    "<Object><Key>pub/a</Key></Object><Object><Key>pub//a</Key></Object>",
    *(f"<Object><Key>{key}</Key></Object>" for key in ("/pub/a", "pub//a", "pub/a/")),
]
OWN_PARAMETERS = allow("ssm:*", arn("ssm", "parameter/own/*"))
OWN_TOPIC = allow("sns:*", arn("sns", "own"))
ON_FUNCTION, ON_ALIAS = (allow("lambda:InvokeFunction", name) for name in (FUNCTION, f"{FUNCTION}:prod"))
ON_ENDPOINT = allow("sagemaker:InvokeEndpoint", arn("sagemaker", "endpoint/mine"))
IN_LAMBDA = allow(["lambda:List*", "lambda:DeleteFunction"])
INSIDE = allow("s3:ListAllMyBuckets", Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})
GRANT = {"UserName": "other", "PolicyName": "x", "PolicyDocument": json.dumps(policy(allow("*")))}
MATES, PROFILE, PATH = "arn:aws:iam::000000000000:*/team/*", {"InstanceProfileName": "mate"}, {"Path": "/team/"}
OUTSIDE = [allow(["iam:*", "sts:*"]), deny("*", MATES)]
USERS = "Action=ListUsers"
TRICK = "Action=CreateUser&UserName=trick"
#: In place of the hash of a body.
UNSIGNED = ("UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
OTHER_BODIES = ("unsigned-payload", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", hashlib.sha256().hexdigest())
TRICK_BODY = form("iam", body=f"{TRICK}&Version=2010-05-08")
ROLES = "arn:aws:iam::000000000000:role"
ROLE = {"Version": "2011-06-15", "RoleArn": f"{ROLES}/federated"}
WEB_IDENTITY = {"RoleSessionName": "s", "WebIdentityToken": "e30.eyJpc3MiOiJodHRwczovL2FjY291bnRzLmdvb2dsZS5jb20ifQ."}
SAML = {"PrincipalArn": "arn:aws:iam::000000000000:saml-provider/p", "SAMLAssertion": "eA=="}
KEY_NAMES = ("KEY_ARN", "KEY_ID", "alias/other", arn("kms", "alias/other"))
#: What users may do, and what they send; without a statement it is the administrator.
ATTACKS: list[tuple[list[Statement], list[Request]]] = [
    # IAM is asked about one operation, and another is done.
    ([allow("s3:ListAllMyBuckets")], [rest("s3", "GET", "/victim/pub/a?Action=ListAllMyBuckets")]),
    ([objects("s3:GetObject", "*")], [rest("s3", "DELETE", "/victim/pub/a", x_amz_target="S3.GetObject")]),
    ([objects("s3:PutObjectTagging", "*")], [rest("s3", "PUT", "/victim/pub/a?tagging&acl", "<Tagging/>")]),
    ([IN_LAMBDA], [rest("lambda", "DELETE", f"{FUNCTIONS}/victim/aliases/prod")]),
    ([IN_LAMBDA], [rest("lambda", "DELETE", f"{FUNCTIONS}/victim/url")]),  # whose path has another date
    ([IN_LAMBDA], [rest("lambda", "POST", f"{FUNCTIONS}/victim%252Finvocations")]),
    ([IN_LAMBDA], [rest("lambda", "POST", f"/{FUNCTIONS}/victim/invocations")]),
    ([IN_LAMBDA], [rest("lambda", "POST", "/2015-03-31/layers/../functions/victim/invocations")]),
    ([allow("lambda:List*")], [rest("lambda", "DELETE", f"{FUNCTIONS}/victim?Action=ListFunctions")]),
    ([allow("ssm:Describe*")], [post("ssm", "AmazonSSM.GetParameter", "/?Action=DescribeParameters", Name="/other/p")]),
    ([allow("iam:ListUsers")], [form("iam", f"/?{USERS}", body=TRICK), rest("iam", "POST", f"/?{USERS}", TRICK)]),
    ([allow("iam:ListUsers")], [form("iam", body=f"{first}&{TRICK}") for first in (USERS, "Action=")]),
    ([allow("iam:ListUsers")], [post("iam", "IAMService.CreateUser", f"/?{USERS}", UserName="trick")]),
    ([allow("iam:*", "arn:aws:iam::000000000000:user/allowed")], [form("iam", "/?UserName=allowed", body=TRICK)]),
    ([allow("cloudwatch:List*")], [rest("monitoring", "POST", f"{METRICS}/PutDashboard?Action=ListMetrics", b"\xa0")]),
    (
        [allow("cloudwatch:List*")],
        [
            rest("monitoring", "POST", f"{METRICS}/DescribeAlarms", smithy_protocol="rpc-v2-cbor"),
            post("monitoring", "GraniteServiceVersion20100801.DescribeAlarms", f"{METRICS}/ListMetrics"),
        ],
    ),
    # What was signed is something else.
    ([], [post(name, "AmazonSSM.GetParameter", Name="/other/p") for name in ("s3", "iam", "execute-api")]),
    ([], [rest("lambda", "GET", "/victim/pub/a", in_query=60), rest("s3", "GET", f"/?{USERS}", in_query=60)]),
    ([], [{**TRICK_BODY, "x_amz_content_sha256": text} for text in (*UNSIGNED, *OTHER_BODIES)]),
    ([], [rest("s3", "PUT", "/victim/trick", "x", x_amz_content_sha256=text) for text in OTHER_BODIES]),
    ([INSIDE], [rest("s3", "GET", "/", x_forwarded_for="10.0.0.1")]),
    *(
        ([allow("*")], [form(sign, Action=f"AssumeRoleWith{kind}", **ROLE, **members)])
        for sign in ("sts", "")
        for kind, members in (("WebIdentity", WEB_IDENTITY), ("SAML", SAML))
    ),
    # IAM is asked about one resource, and something is done with another.
    ([OWN_PARAMETERS], [post("ssm", "AmazonSSM.GetParameters", Name="/own/p", Names=["/other/p"])]),
    (
        [OWN_PARAMETERS],
        [post("ssm", f"AmazonSSM.{verb}Parameters", Names=["/own/p", "/other/p"]) for verb in ("Get", "Delete")],
    ),
    (
        [allow("codebuild:*", arn("codebuild", "project/own"))],
        [
            post("codebuild", "CodeBuild_20161006.UpdateProject", projectName="own", name="other"),
            post("codebuild", "CodeBuild_20161006.BatchGetProjects", names=["own", "other"]),
        ],
    ),
    (
        [allow("ec2:*", arn("ec2", "instance/i-own"))],
        [form("ec2", body="Action=TerminateInstances&Version=2016-11-15&InstanceId.1=i-own&InstanceId.2=i-other")],
    ),
    (
        [allow("logs:*", arn("logs", "log-group:own*"))],
        [
            post(
                "logs", "Logs_20140328.GetLogEvents", logGroupName="own", logGroupIdentifier="other", logStreamName="s"
            ),
            post("logs", "Logs_20140328.StartQuery", logGroupName="own", logGroupNames=["other"], queryString="x"),
        ],
    ),
    (
        [allow("iam:*", "arn:aws:iam::000000000000:role/own")],
        [
            form("iam", Action="PutUserPolicy", RoleName="own", **GRANT),
            form("iam", Action="CreateAccessKey", RoleName="own", UserName="other"),
            form("iam", Action="CreateAccessKey", rolename="own", UserName="other"),
        ],
    ),
    (
        OUTSIDE,
        [
            form("iam", Action="UpdateAssumeRolePolicy", RoleName="mate", PolicyDocument="{}"),
            form("iam", Action="UpdateUser", UserName="other", NewPath="/team/"),
            form("iam", Action="AddUserToGroup", UserName="other", GroupName="mate"),
            form("iam", Action="AddRoleToInstanceProfile", RoleName="federated", **PROFILE),
            form("iam", Action="CreatePolicy", PolicyName="p", PolicyDocument=json.dumps(policy(allow("*"))), **PATH),
            *(form("iam", Action=f"Delete{kind}", **{f"{kind}Name": "mate"}) for kind in ("User", "Group", "Role")),
            *(form("iam", Action=f"Create{kind}", **{f"{kind}Name": "new"}, **PATH) for kind in ("User", "Group")),
            *(
                form("sts", Action="AssumeRole", Version="2011-06-15", RoleSessionName="s", RoleArn=f"{ROLES}/{name}")
                for name in ("team/mate", "mate", "other/mate")
            ),
        ],
    ),
    (
        [OWN_TOPIC],
        [form("sns", Action="Publish", TopicArn=arn("sns", "own"), TargetArn=arn("sns", "other"), Message="x")],
    ),
    (
        [allow("cloudformation:*", arn("cloudformation", "stack/own/*"))],
        [
            form("cloudformation", body=f"Action={action}ChangeSet&ChangeSetName=CHANGE_SET{stack}&Version=2010-05-15")
            for action in ("Execute", "Delete", "Describe")
            for stack in ("", "&StackName=own")
        ],
    ),
    (
        [allow("s3:*", "arn:aws:s3:::own*")],
        [
            rest("s3", "GET", f"/v20180820/tags/{quote(name, safe='')}", x_amz_account_id="000000000000")
            for name in ("arn:aws:s3:::own:::victim", "arn:aws-cn:s3:::victim", "arn:aws:s3:::victim", "victim")
        ],
    ),
    (
        [objects("s3:DeleteObject", "pub/a")],
        [deletion(content, path) for path in ("/victim?delete", "/victim//?delete") for content in CONTENTS],
    ),
    (
        [objects(["s3:GetObject", "s3:PutObject"], "*")],
        [
            rest("s3", "PUT", "/victim/pub/b", x_amz_copy_source=f"victim/pub/a?{query}")
            for query in ("versionId=VERSION", "versionId=VERSION&versionId=", "%76ersionId=VERSION")
        ],
    ),
    ([ON_FUNCTION], [invoke("victim:prod"), invoke("victim", "?Qualifier=prod")]),
    ([ON_ALIAS], [invoke("victim"), *(invoke(name, "?Qualifier=%24LATEST") for name in ("victim", "victim:prod"))]),
    ([ON_ALIAS], [invoke(f"{FUNCTION}:prod", "?Qualifier=1"), invoke("victim", "?Qualifier=prod&Qualifier=1")]),
    (
        [allow("lambda:*"), deny("lambda:*", FUNCTION, f"{FUNCTION}:*")],
        [invoke(name) for name in ("victim", "victim:prod", FUNCTION, FUNCTION.replace("aws", "aws-cn", 1))],
    ),
    (
        [allow("kms:*"), deny("kms:*", "KEY_ARN")],
        [
            post("kms", "TrentService.CreateAlias", AliasName="alias/x", TargetKeyId="KEY_ARN"),
            *(post("kms", "TrentService.Encrypt", KeyId=name, Plaintext="eA==") for name in (*KEY_NAMES, "CN_KEY")),
        ],
    ),
    (
        [ON_ENDPOINT, allow("sagemaker:ListModels")],
        [
            rest("sagemaker", "POST", f"/endpoints/{name}/invocations{query}", "{}")
            for name in ("another", "another%2F", "mine/../another")
            for query in ("", "?Action=ListModels", "?Action=InvokeEndpoint&EndpointName=mine")
        ],
    ),
    (
        [allow("sagemaker:CreateEndpoint", arn("sagemaker", "endpoint/*"))],
        [post("sagemaker", "SageMaker.CreateEndpoint", EndpointName="e", EndpointConfigName="c")],
    ),
    # A key is what it is to the last slash.
    ([objects("s3:GetObject", "pub/*")], two_ways("GET", "/pub/a")),
    ([objects("s3:GetObject", "pub/a")], [*two_ways("GET", "pub//a"), *two_ways("GET", "pub/a/")]),
    ([objects("s3:GetObject", "pub/a")], two_ways("HEAD", "pub//a")),
    ([objects("s3:PutObject", "in/*")], two_ways("PUT", "/in/evil")),
    ([objects("s3:DeleteObject", "pub/*")], two_ways("DELETE", "/pub/a")),
    ([objects("s3:*", "*"), deny("s3:*", "arn:aws:s3:::victim/pub//*")], two_ways("GET", "pub//a")),
    *(([allow(f"s3:{verb}Bucket")], two_ways(method, "/")) for verb, method in VERBS),
    (
        [objects(["s3:GetObject", "s3:PutObject"], "pub/*")],
        two_ways("PUT", "pub/b", x_amz_copy_source="victim//pub/a"),
    ),
    (
        [objects("s3:GetObjectAttributes", "*"), objects("s3:GetObject", "pub/*")],
        two_ways("GET", "/pub/a?attributes", x_amz_object_attributes="ObjectSize"),
    ),
    (
        [objects("s3:DeleteObject", "*"), objects("s3:BypassGovernanceRetention", "pub/a")],
        two_ways("DELETE", "pub//a", x_amz_bypass_governance_retention="true"),
    ),
    # What names no resource needs a permission for all.
    *(
        (
            [allow("sagemaker:*", arn("sagemaker", "*/mine"))],
            [{**post("sagemaker", "SageMaker.DeleteModel"), "body": body}],
        )
        for body in ('{"ModelName": "victim"}', "{}", "[]", b"\xff", '{"ModelName": 5}')
    ),
    ([OWN_TOPIC], [post("application-autoscaling", "AnyScaleFrontendService.DescribeScalableTargets")]),
]
#: What the same permissions are good for.
ALLOWED: list[tuple[list[Statement], Request]] = [
    *(([objects("s3:GetObject", key)], rest("s3", "GET", f"/victim/{key}")) for key in OBJECTS),
    ([objects("s3:DeleteObject", "free")], deletion("<Quiet>true</Quiet><Object><Key>free</Key></Object>")),
    ([OWN_PARAMETERS], post("ssm", "AmazonSSM.GetParameters", Names=["/own/p", "/own/p:1"])),
    ([OWN_TOPIC], form("sns", Action="Publish", TopicArn=arn("sns", "own"), Message="x")),
    ([allow("iam:GetRole", f"{ROLES}/team/*")], form("iam", Action="GetRole", RoleName="mate")),
    (OUTSIDE, form("iam", Action="GetUser", UserName="other")),
    ([ON_FUNCTION], invoke("victim")),
    *(([ON_ALIAS], request) for request in (invoke("victim:prod"), invoke("victim", "?Qualifier=prod"))),
    ([ON_ENDPOINT], rest("sagemaker", "POST", "/endpoints/mine/invocations", "{}")),
    ([], rest("iam", "GET", "/?Action=ListRoles&Version=2010-05-08")),
]


@pytest.fixture
def send(aws: LocalAws, names: dict[str, str]) -> Callable[..., Any]:
    """Send a request as a user of its own."""
    users: dict[str, Any] = {}

    def fill(value: Any) -> Any:
        for name, text in names.items():
            value = value.replace(name, text) if isinstance(value, str) else value
        return value

    def send(allowed: list[Statement], wanted: Request) -> Any:
        document = fill(json.dumps(policy(*allowed)))
        if allowed and document not in users:
            users[document] = aws.user(f"attacker-{uuid.uuid4()}", json.loads(document))
        filled = {name: fill(value) for name, value in wanted.items()}
        if filled["sign"] == "s3" and isinstance(filled["body"], str) and filled["body"]:
            filled["content_md5"] = base64.b64encode(hashlib.md5(filled["body"].encode()).digest()).decode()
        return aws.send(key=users.get(document), **filled)

    return send


@pytest.mark.parametrize(("allowed", "requests"), ATTACKS)
def test_what_is_asked_of_iam_is_what_is_done(
    aws: LocalAws, before: list[Any], send: Callable[..., Any], allowed: list[Statement], requests: list[Request]
) -> None:
    for request in requests:
        answer = send(allowed, request)
        assert answer.status in (400, 403), (request, answer.data)
        assert not any(text in answer.data.decode() for text in (SECRET, "SecretAccessKey")), request
    assert account(aws) == before


@pytest.mark.parametrize(("allowed", "request_"), ALLOWED)
def test_what_is_allowed_is_done(send: Callable[..., Any], allowed: list[Statement], request_: Request) -> None:
    answer = send(allowed, request_)
    assert answer.status == 200 or b"Endpoint mine of account 000000000000 not found" in answer.data, answer.data
