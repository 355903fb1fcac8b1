"""Attempts on the door of a local AWS that runs: to come in without a key, with another one, or for something else."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import http.client
import itertools
import json
import stat
from typing import Any
from urllib.parse import urlencode

import botocore.auth
import botocore.exceptions
import pytest
import urllib3
from botocore.config import Config
from local_aws_harness import LAMBDA_TRUST, LocalAws, policy, trust

SOURCE = """
def handler(event, context):
    return {"statusCode": 200, "body": str(event["headers"].get("authorization"))}
"""
FORM = {"content_type": "application/x-www-form-urlencoded"}
JSON = {"content_type": "application/x-amz-json-1.1"}
EVERYBODY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*"}]}


@pytest.fixture(scope="module", autouse=True)
def things(aws: LocalAws) -> None:
    """What the attempts are after."""
    aws.function("f", SOURCE)
    s3 = aws.client("s3")
    for bucket in ("private", "public"):
        s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key="object", Body=b"content")
    s3.delete_public_access_block(Bucket="public")
    statement = {**EVERYBODY["Statement"][0], "Action": "s3:GetObject", "Resource": "arn:aws:s3:::public/*"}
    s3.put_bucket_policy(Bucket="public", Policy=json.dumps({**EVERYBODY, "Statement": [statement]}))
    aws.client("ssm").put_parameter(Name="hidden", Value="of the parameter", Type="String")
    aws.client("secretsmanager").create_secret(Name="hidden", SecretString="of the administrator")


@pytest.mark.parametrize(
    ("authorization", "query"),
    [
        ("AWSx", ""),
        ("AWS4HMAC x", ""),
        ("AWS4-HMAC-SHA256", ""),
        ("AWS :x", ""),
        ("AWS test:00", ""),
        ("Basic dGVzdDp0ZXN0", ""),
        ("AWS4-HMAC-SHA256 Credential=/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00", ""),
        ("AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00", ""),
        (None, ""),
        (None, "?X-Amz-Signature=&X-Amz-Signature=x"),
        (None, "?X-Amz-Signature=x&X-Amz-Signature="),
        (None, "?AWSAccessKeyId=&AWSAccessKeyId=x"),
    ],
)
def test_who_has_no_key_makes_no_role_and_no_function_and_reads_no_secret(
    aws: LocalAws, authorization: str | None, query: str
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    role = urlencode({"Action": "CreateRole", "RoleName": "ours", "AssumeRolePolicyDocument": json.dumps(LAMBDA_TRUST)})
    function = {"FunctionName": "ours", "Role": "arn:aws:iam::000000000000:role/f-function", "Handler": "a.b"}
    target = {"x_amz_target": "secretsmanager.GetSecretValue"}
    answers = [
        aws.send("POST", f"/{query}", role, **FORM, **headers),
        aws.send("POST", f"/2015-03-31/functions{query}", json.dumps(function), **headers),
        aws.send("POST", f"/{query}", b'{"SecretId": "hidden"}', **target, **headers),
        aws.send("GET", f"/private/object{query}", **headers),
        aws.send("PUT", f"/private/object{query}", **headers),
        aws.send("POST", f"/2015-03-31/functions/f/invocations{query}", b"{}", **headers),
    ]
    assert {answer.status for answer in answers} == {403}
    assert "ours" not in {role["RoleName"] for role in aws.client("iam").list_roles()["Roles"]}
    assert "ours" not in {made["FunctionName"] for made in aws.client("lambda").list_functions()["Functions"]}
    assert aws.client("s3").get_object(Bucket="private", Key="object")["Body"].read() == b"content"


def test_everybody_may_read_public_objects_and_nothing_else(aws: LocalAws) -> None:
    assert aws.send("GET", "/public/object").data == b"content"
    assert aws.send("HEAD", "/public/object").status == 200
    refused = ["/private/object", "/public/object?acl", "/public", "/", "/public/../private/object"]
    refused += ["/public/object?Action=GetObject&acl", "/public/", "/public%2F..%2Fprivate/object"]
    writing = [(method, "/public/object") for method in ("PUT", "POST", "DELETE")]
    for method, path in [*writing, *(("GET", path) for path in refused)]:
        assert aws.send(method, path).status in (400, 403, 404), (method, path)
    assert aws.send("GET", "/public/object").data == b"content"


def test_the_host_of_a_bucket_has_its_objects_and_no_pages(aws: LocalAws) -> None:
    host = {"host": f"public.s3.localhost:{aws.port}"}
    for key in ("health", "oauth2/authorize", "oidc/id/x/.well-known/openid-configuration", "v2/apis"):
        aws.client("s3").put_object(Bucket="public", Key=key, Body=b"content")
        assert aws.send("GET", f"/{key}", **host).data == b"content", key
    for page in ("/_ministack/health", "/_localstack/health", "//_ministack/config"):
        assert aws.send("GET", page, **host).status == 404
    assert aws.send("PUT", "/_ministack/cfn-response/token", b"{}", **host).status in (403, 404)


def test_a_bucket_that_blocks_public_policies_is_closed_to_everybody(aws: LocalAws) -> None:
    s3 = aws.client("s3")
    s3.put_public_access_block(Bucket="public", PublicAccessBlockConfiguration={"RestrictPublicBuckets": True})
    try:
        assert aws.send("GET", "/public/object").status == 403
    finally:
        s3.delete_public_access_block(Bucket="public")


def make_url(aws: LocalAws, name: str, auth_type: str, **configuration: Any) -> str:
    functions = aws.client("lambda")
    functions.create_alias(
        FunctionName="f", Name=name, FunctionVersion=functions.publish_version(FunctionName="f")["Version"]
    )
    made = functions.create_function_url_config(FunctionName="f", Qualifier=name, AuthType=auth_type, **configuration)
    return str(made["FunctionUrl"]).removeprefix(aws.environment["AWS_ENDPOINT_URL"])


def test_a_public_function_url_is_public_by_both_permissions_only(aws: LocalAws) -> None:
    path = make_url(aws, "public", "NONE")
    functions = aws.client("lambda")
    everybody = {"FunctionName": "f", "Qualifier": "public", "Principal": "*"}
    assert aws.send("POST", path).status == 403
    functions.add_permission(
        StatementId="a", Action="lambda:InvokeFunctionUrl", FunctionUrlAuthType="NONE", **everybody
    )
    assert aws.send("POST", path).status == 403
    functions.add_permission(StatementId="b", Action="lambda:InvokeFunction", InvokedViaFunctionUrl=True, **everybody)
    assert aws.send("POST", path).status == 200
    assert aws.send("GET", path, authorization="Bearer token").data == b"Bearer token"
    assert aws.send("GET", path, authorization="AWSx").status == 403


def test_a_function_url_takes_no_signature_for_another_service_or_region(aws: LocalAws) -> None:
    path = make_url(aws, "signed", "AWS_IAM")
    for seconds, (service, region) in itertools.product(
        (0, 60), [*((name, "us-east-1") for name in ("lambda", "execute-api", "s3")), ("lambda", "eu-west-1")]
    ):
        right = (service, region) == ("lambda", "us-east-1")
        assert aws.send("GET", path, sign=service, region=region, in_query=seconds).status == (200 if right else 403)
    assert aws.send("GET", path, authorization="Bearer token").status == 403


def test_what_is_signed_for_one_service_is_refused_by_another(aws: LocalAws) -> None:
    target = {"x_amz_target": "AmazonSSM.GetParameter", **JSON}
    for service in ("ssm", "s3", "iam", "sagemaker", "execute-api"):
        answer = aws.send("POST", "/", b'{"Name": "hidden"}', sign=service, **target)
        assert (answer.status == 200) == (b"of the parameter" in answer.data) == (service == "ssm"), service
    assert aws.send("GET", "/?Action=ListRoles&Version=2010-05-08", sign="iam", in_query=60).status == 200
    assert aws.send("GET", "/private/object", sign="lambda", in_query=60).status == 403
    assert aws.send("GET", "/?Action=ListRoles&Version=2010-05-08", sign="s3", in_query=60).status == 403


def test_pages_of_other_sites_get_what_a_cors_configuration_gives_them(aws: LocalAws) -> None:
    rule = {"AllowedOrigins": ["http://site.example"], "AllowedMethods": ["GET"]}
    aws.client("s3").put_bucket_cors(Bucket="public", CORSConfiguration={"CORSRules": [rule]})
    path = make_url(aws, "cors", "AWS_IAM", Cors={"AllowOrigins": ["http://site.example"], "AllowMethods": ["*"]})
    for origin, status in (("http://site.example", 200), ("http://evil.example", 403), ("null", 403)):
        for address in ("/public/object", path):
            preflight = aws.send("OPTIONS", address, origin=origin, access_control_request_method="GET")
            assert (preflight.status, preflight.headers.get("access-control-allow-origin")) == (
                status,
                origin if status == 200 else None,
            )
        assert aws.send("GET", "/public/object", origin=origin).status == status
    for address in ("/", "/private/object", "/2015-03-31/functions"):
        refused = aws.send("OPTIONS", address, origin="http://site.example", access_control_request_method="GET")
        assert refused.status == 403
        assert "access-control-allow-origin" not in refused.headers
    own = {"origin": aws.environment["AWS_ENDPOINT_URL"]}
    assert aws.send("GET", "/", sign="s3", **own).status == 200


# What a user may do, the request, and which refusals are right.
TRICKS: dict[str, tuple[str, dict[str, Any]]] = {
    "s3": ("s3:ListAllMyBuckets", {"method": "GET", "path": "/private/object?Action=ListAllMyBuckets"}),
    "s3 target": ("s3:GetObject", {"method": "DELETE", "path": "/private/object", "x_amz_target": "S3.GetObject"}),
    "s3 two": ("s3:PutObjectTagging", {"method": "PUT", "path": "/private/object?tagging&acl", "body": "<Tagging/>"}),
    "lambda": ("lambda:ListFunctions", {"method": "DELETE", "path": "/2015-03-31/functions/f?Action=ListFunctions"}),
    "lambda target": (
        "lambda:ListFunctions",
        {"method": "DELETE", "path": "/2015-03-31/functions/f", "x_amz_target": "Lambda.ListFunctions"},
    ),
    "lambda alias": ("lambda:ListAliases", {"method": "DELETE", "path": "/2015-03-31/functions/f/aliases/kept"}),
    "lambda date": ("lambda:DeleteFunction", {"method": "DELETE", "path": "/2015-03-31/functions/f/url"}),
    "lambda encoded twice": ("lambda:List*", {"method": "POST", "path": "/2015-03-31/functions/f%252Finvocations"}),
    "lambda empty segment": ("lambda:List*", {"method": "POST", "path": "//2015-03-31/functions/f/invocations"}),
    "lambda dots": ("lambda:List*", {"method": "POST", "path": "/2015-03-31/layers/../functions/f/invocations"}),
    "ssm": (
        "ssm:DescribeParameters",
        {"path": "/?Action=DescribeParameters", "body": '{"Name": "hidden"}', "x_amz_target": "AmazonSSM.GetParameter"},
    ),
    "kms": ("kms:ListKeys", {"path": "/?Action=ListKeys", "body": "{}", "x_amz_target": "TrentService.CreateKey"}),
    "iam both": (
        "iam:ListUsers",
        {"path": "/?Action=ListUsers", "body": "Action=CreateUser&UserName=trick", **FORM},
    ),
    "iam untyped": ("iam:ListUsers", {"path": "/?Action=ListUsers", "body": "Action=CreateUser&UserName=trick"}),
    "iam twice": (
        "iam:ListUsers",
        {"path": "/", "body": "Action=ListUsers&Action=CreateUser&UserName=trick", **FORM},
    ),
    "iam blank": ("iam:ListUsers", {"path": "/", "body": "Action=&Action=CreateUser&UserName=trick", **FORM}),
    "iam resource": (
        "iam:CreateUser",
        {"path": "/?UserName=allowed", "body": "Action=CreateUser&UserName=trick", **FORM},
    ),
    "iam json": (
        "iam:ListUsers",
        {
            "path": "/?Action=ListUsers",
            "body": '{"UserName": "trick"}',
            "x_amz_target": "IAMService.CreateUser",
            **JSON,
        },
    ),
    "monitoring": (
        "cloudwatch:ListMetrics",
        {"path": "/service/GraniteServiceVersion20100801/operation/PutDashboard?Action=ListMetrics", "body": b"\xa0"},
    ),
    "monitoring cbor": (
        "cloudwatch:ListMetrics",
        {
            "path": "/service/GraniteServiceVersion20100801/operation/DescribeAlarms",
            "smithy_protocol": "rpc-v2-cbor",
            "content_type": "application/cbor",
        },
    ),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_what_is_asked_of_iam_is_what_is_done(aws: LocalAws, trick: str) -> None:
    allowed, call = TRICKS[trick]
    service = trick.split()[0]
    resource = "arn:aws:iam::000000000000:user/allowed" if trick == "iam resource" else "*"
    with contextlib.suppress(botocore.exceptions.ClientError):
        aws.client("lambda").create_alias(FunctionName="f", Name="kept", FunctionVersion="$LATEST")
    key = aws.user(f"trickster-{trick.replace(' ', '-')}", policy({"Action": allowed, "Resource": resource}))
    call = {"method": "POST", "body": b"", **call}
    answer = aws.send(**call, sign=service, key=key)
    assert answer.status in (400, 403), answer.data
    assert b"of the parameter" not in answer.data
    aws.client("lambda").get_alias(FunctionName="f", Name="kept")
    aws.client("s3").head_object(Bucket="private", Key="object")
    assert "trick" not in {user["UserName"] for user in aws.client("iam").list_users()["Users"]}


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_urls_do_what_was_signed_and_nothing_else(aws: LocalAws, version: str) -> None:
    s3 = aws.client("s3", config=Config(signature_version=version))
    name = {"Bucket": "private", "Key": f"presigned-{version}"}
    put, get = s3.generate_presigned_url("put_object", name), s3.generate_presigned_url("get_object", name)

    assert aws.send("PUT", put, b"by URL").status == 200
    assert aws.send("GET", get).data == b"by URL"
    for method, url in (("GET", put), ("PUT", get), ("DELETE", get)):
        assert aws.send(method, url).status == 403
    for more in ("&tagging", "&retention", "&X-Amz-Signature=x", "&x-amz-copy-source=/private/object"):
        assert aws.send("PUT", put + more, b"<Tagging/>").status == 403, more
    assert aws.send("PUT", put, b"", x_amz_copy_source="/private/object").status == 403
    assert aws.send("GET", get, authorization="AWSx").status == 403
    assert aws.send("GET", get.replace("presigned", "object")).status == 403
    with pytest.MonkeyPatch.context() as clock:
        earlier = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=62)
        clock.setattr(botocore.auth, "get_current_datetime", lambda: earlier.replace(tzinfo=None))
        clock.setattr("time.time", earlier.timestamp)
        good, expired = (s3.generate_presigned_url("get_object", name, ExpiresIn=seconds) for seconds in (600, 60))
    assert [aws.send("GET", url).status for url in (good, expired)] == [200, 403]

    post = s3.generate_presigned_post("private", f"posted-{version}")
    fields = {**post["fields"], "file": ("name", b"by form")}
    assert urllib3.request("POST", post["url"], fields=fields).status == 204
    posted = aws.client("s3").get_object(Bucket="private", Key=f"posted-{version}")
    assert posted["Body"].read() == b"by form"
    signature = "x-amz-signature" if version == "s3v4" else "signature"
    for forged in (
        {**fields, signature: "0" * 64},
        {**fields, "key": "object"},
        {"key": "object", "file": ("n", b"x")},
    ):
        assert urllib3.request("POST", post["url"], fields=forged).status in (400, 403)
    assert aws.client("s3").get_object(Bucket="private", Key="object")["Body"].read() == b"content"


def test_a_body_other_than_the_signed_one_is_refused(aws: LocalAws) -> None:
    signed = hashlib.sha256(b"signed").hexdigest()
    refused = aws.send("PUT", "/private/swapped", b"another", sign="s3", x_amz_content_sha256=signed)
    assert (refused.status, b"XAmzContentSHA256Mismatch" in refused.data) == (400, True)


def test_the_address_of_a_caller_is_not_what_a_header_says(aws: LocalAws) -> None:
    inside = {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}
    key = aws.user("inside", policy({"Action": "s3:ListAllMyBuckets", "Resource": "*", **inside}))
    assert aws.send("GET", "/", sign="s3", key=key, x_forwarded_for="10.0.0.1").status == 403


def test_session_keys_need_their_token(aws: LocalAws) -> None:
    document = trust("lambda.amazonaws.com")
    document["Statement"] += [{"Effect": "Allow", "Principal": {"AWS": "000000000000"}, "Action": "sts:AssumeRole"}]
    role = aws.role("assumed", document, policy({"Action": "s3:ListAllMyBuckets", "Resource": "*"}))
    user = aws.user("assumer", policy({"Action": "sts:AssumeRole", "Resource": role}))
    session = aws.client("sts", user).assume_role(RoleArn=role, RoleSessionName="session")["Credentials"]
    aws.client("s3", session).list_buckets()
    without = {name: session[name] for name in ("AccessKeyId", "SecretAccessKey")}
    with pytest.raises(botocore.exceptions.ClientError):
        aws.client("s3", without).list_buckets()


def test_what_the_server_writes_is_its_owners_alone(aws: LocalAws) -> None:
    aws.client("logs").create_log_group(logGroupName="g")
    assert stat.S_IMODE(aws.state_dir.stat().st_mode) == 0o700
    open_to_others = {str(path): mode for path in aws.state_dir.rglob("*") if (mode := path.lstat().st_mode) & 0o077}
    assert open_to_others == {}
    assert {"ministack.db", "credentials.json", "server.log"} <= {path.name for path in aws.state_dir.iterdir()}


@pytest.mark.parametrize("presigned", [False, True])
def test_of_who_is_not_known_no_body_is_taken(aws: LocalAws, presigned: bool) -> None:
    scope, names, zeros = "AKIANOSUCHKEY/20260101/us-east-1/s3/aws4_request", "host;x-amz-date", "0" * 64
    signature = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={zeros}"
    fields = {"Algorithm": "AWS4-HMAC-SHA256", "Credential": scope, "Date": "20260101T000000Z", "Expires": "60"}
    fields |= {"SignedHeaders": "host", "Signature": zeros}
    query = f"?{urlencode({f'X-Amz-{name}': value for name, value in fields.items()})}" if presigned else ""
    connection = http.client.HTTPConnection("127.0.0.1", aws.port, timeout=10)
    with contextlib.closing(connection):
        connection.putrequest("PUT", f"/bucket/key{query}")
        connection.putheader("Content-Length", str(250 * 2**20))
        if not presigned:
            connection.putheader("X-Amz-Date", fields["Date"])
            connection.putheader("Authorization", signature)
        connection.endheaders()  # and no body follows
        answer = connection.getresponse()
        assert (answer.status, b"InvalidAccessKeyId" in answer.read()) == (403, True)
