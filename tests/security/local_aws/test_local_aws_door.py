"""Attempts on the door of a local AWS that runs: without a key, with another one, by a URL, from another site."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import json
import re
import socket
import stat
from collections.abc import Callable, Iterator
from typing import Any

import botocore.auth
import botocore.exceptions
import pytest
import urllib3
from botocore.config import Config
from local_aws_harness import LocalAws, policy, refused

SOURCE = (
    'def handler(event, context):\n    return {"statusCode": 200, "body": str(event["headers"].get("authorization"))}\n'
)


@pytest.fixture(scope="module", autouse=True)
def things(aws: LocalAws) -> None:
    """What the attempts are after."""
    aws.function("f", SOURCE)
    for bucket in ("private", "public"):
        aws.s3.create_bucket(Bucket=bucket)
        aws.s3.put_object(Bucket=bucket, Key="object", Body=b"content")
    aws.s3.delete_public_access_block(Bucket="public")
    reading = {"Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::public/*"}
    aws.s3.put_bucket_policy(Bucket="public", Policy=json.dumps(policy(reading)))


def test_everybody_may_read_public_objects_and_nothing_else(aws: LocalAws) -> None:
    assert aws.send("HEAD", "/public/object").status == 200
    closed = ["/private/object", "/public/object?acl", "/public", "/", "/public/../private/object"]
    closed += ["/public/object?Action=GetObject&acl", "/public/", "/public%2F..%2Fprivate/object"]
    writing = [(method, "/public/object") for method in ("PUT", "POST", "DELETE")]
    for method, path in [*writing, *(("GET", path) for path in closed)]:
        assert aws.send(method, path).status in (400, 403, 404), (method, path)
    assert aws.send("GET", "/public/object").data == b"content"


def test_a_bucket_that_blocks_public_policies_is_closed_to_everybody(aws: LocalAws) -> None:
    aws.s3.put_public_access_block(Bucket="public", PublicAccessBlockConfiguration={"RestrictPublicBuckets": True})
    assert aws.send("GET", "/public/object").status == 403
    aws.s3.delete_public_access_block(Bucket="public")
    assert aws.send("GET", "/public/object").status == 200


def make_url(aws: LocalAws, name: str, auth_type: str, **configuration: Any) -> str:
    version = aws.lambda_.publish_version(FunctionName="f")["Version"]
    aws.lambda_.create_alias(FunctionName="f", Name=name, FunctionVersion=version)
    named = {"FunctionName": "f", "Qualifier": name}
    made = aws.lambda_.create_function_url_config(**named, AuthType=auth_type, **configuration)
    return str(made["FunctionUrl"]).removeprefix(aws.environment["AWS_ENDPOINT_URL"])


def test_a_public_function_url_is_public_by_both_permissions_only(aws: LocalAws) -> None:
    path = make_url(aws, "public", "NONE")
    everybody = {"FunctionName": "f", "Qualifier": "public", "Principal": "*"}
    for action, condition in (
        ("lambda:InvokeFunctionUrl", {"FunctionUrlAuthType": "NONE"}),
        ("lambda:InvokeFunction", {"InvokedViaFunctionUrl": True}),
    ):
        assert aws.send("POST", path).status == 403
        aws.lambda_.add_permission(StatementId=action[-3:], Action=action, **everybody, **condition)
    assert aws.send("POST", path).status == 200
    assert aws.send("GET", path, authorization="Bearer token").data == b"Bearer token"
    assert aws.send("GET", path, authorization="AWSx").status == 403


def test_a_function_url_takes_no_signature_for_another_service_or_region(aws: LocalAws) -> None:
    path = make_url(aws, "signed", "AWS_IAM")
    assert {aws.send(method, path, sign="lambda").status for method in ("GET", "HEAD")} == {200}
    for service, region in (("execute-api", "us-east-1"), ("s3", "us-east-1"), ("lambda", "eu-west-1")):
        for seconds in (0, 60):
            assert aws.send("GET", path, sign=service, region=region, in_query=seconds).status == 403
    assert aws.send("GET", path, authorization="Bearer token").status == 403


def test_pages_of_other_sites_get_what_the_cors_configuration_of_a_function_url_gives_them(aws: LocalAws) -> None:
    rule = {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}
    aws.s3.put_bucket_cors(Bucket="public", CORSConfiguration={"CORSRules": [rule]})
    path = make_url(aws, "cors", "AWS_IAM", Cors={"AllowOrigins": ["http://site.example"], "AllowMethods": ["*"]})
    for origin, allowed in (("http://site.example", True), ("http://evil.example", False), ("null", False)):
        preflight = aws.send("OPTIONS", path, origin=origin, access_control_request_method="GET")
        found = preflight.status, preflight.headers.get("access-control-allow-origin")
        assert found == ((200, origin) if allowed else (403, None))
        assert aws.send("GET", "/public/object", origin=origin).status == 403
    for address in ("/", "/public/object", "/2015-03-31/functions"):
        preflight = aws.send("OPTIONS", address, origin="http://site.example", access_control_request_method="GET")
        assert (preflight.status, "access-control-allow-origin" in preflight.headers) == (403, False)
    assert aws.send("GET", "/", sign="s3", origin=aws.environment["AWS_ENDPOINT_URL"]).status == 200


@contextlib.contextmanager
def ago(seconds: int) -> Iterator[None]:
    """Sign as if it were earlier."""
    earlier = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)
    with pytest.MonkeyPatch.context() as clock:
        clock.setattr(botocore.auth, "get_current_datetime", lambda: earlier.replace(tzinfo=None))
        clock.setattr("time.time", earlier.timestamp)
        yield


def test_presigned_urls_do_what_was_signed_and_nothing_else(aws: LocalAws) -> None:
    s3, name = aws.client("s3", config=Config(signature_version="s3v4")), {"Bucket": "private", "Key": "presigned"}
    put, get = s3.generate_presigned_url("put_object", name), s3.generate_presigned_url("get_object", name)
    assert aws.send("PUT", put, b"by URL").status == 200
    assert aws.send("GET", get).data == b"by URL"
    for method, url in (("GET", put), ("PUT", get), ("DELETE", get), ("GET", get.replace("presigned", "object"))):
        assert aws.send(method, url).status == 403
    for more in ("&tagging", "&retention", "&X-Amz-Signature=x", "&x-amz-copy-source=/private/object"):
        assert aws.send("PUT", put + more, b"<Tagging/>").status == 403, more
    assert aws.send("PUT", put, b"", x_amz_copy_source="/private/object").status == 403
    assert aws.send("GET", get, authorization="AWSx").status == 403
    with ago(62):
        good, expired = (s3.generate_presigned_url("get_object", name, ExpiresIn=seconds) for seconds in (600, 60))
    assert [aws.send("GET", url).status for url in (good, expired)] == [200, 403]


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_no_form_uploads_anything(aws: LocalAws, version: str) -> None:
    post = aws.client("s3", config=Config(signature_version=version)).generate_presigned_post("private", "posted")
    fields = {**post["fields"], "file": ("name", b"by form")}
    assert urllib3.request("POST", post["url"], fields=fields).status == 403
    assert aws.send("GET", "/private/posted", sign="s3").status == 404


def test_signature_version_2_is_refused(aws: LocalAws) -> None:
    s3 = aws.client("s3", config=Config(signature_version="s3"))
    answer = aws.send("GET", s3.generate_presigned_url("get_object", {"Bucket": "private", "Key": "object"}))
    assert (answer.status, b"s3v4" in answer.data) == (403, True)
    refused(s3.get_object, "403", Bucket="private", Key="object")


def test_only_s3_has_presigned_urls(aws: LocalAws) -> None:
    urls = (("s3", "/"), ("sts", "/?Action=GetCallerIdentity&Version=2011-06-15"))
    assert [aws.send("GET", url, sign=service, in_query=60).status for service, url in urls] == [200, 403]


def test_of_who_is_not_known_no_body_is_taken(aws: LocalAws) -> None:
    scope, zeros = "AKIANOSUCHKEY/20260101/us-east-1/s3/aws4_request", "0" * 64
    signature = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-date, Signature={zeros}"
    connection = http.client.HTTPConnection("127.0.0.1", aws.port, timeout=10)
    with contextlib.closing(connection):
        connection.putrequest("PUT", "/bucket/key")
        connection.putheader("Content-Length", str(250 * 2**20))
        connection.putheader("X-Amz-Date", "20260101T000000Z")
        connection.putheader("Authorization", signature)
        connection.endheaders()  # and no body follows
        answer = connection.getresponse()
        assert (answer.status, b"InvalidAccessKeyId" in answer.read()) == (403, True)


HIDDEN = b"GET /private/object HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
CHUNKED = b"POST /public HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
RAW = {
    "length and chunks": CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunks twice": CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "negative chunk": CHUNKED + b"\r\n-1\r\n\r\n" + HIDDEN,
    "two lengths": b"POST /public HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n"
    + HIDDEN,
    "long header": HIDDEN[:-2] + b"X: " + b"x" * 2**20 + b"\r\n\r\n",
    "many headers": HIDDEN[:-2] + b"X: x\r\n" * 50_000 + b"\r\n",
    "long path": HIDDEN.replace(b"object", b"x" * 2**20),
    "other host": HIDDEN.replace(b"127.0.0.1", b"evil.example"),
    "two hosts": HIDDEN.replace(b"Host:", b"Host: 127.0.0.1\r\nHost:"),
    "no host": HIDDEN.replace(b"Host: 127.0.0.1\r\n", b""),
    "whole address": HIDDEN.replace(b"/private", b"http://169.254.169.254/private"),
    "NUL in a header": HIDDEN[:-2] + b"X: \0\r\n\r\n",
    "line feeds": HIDDEN.replace(b"\r\n", b"\n"),
    "no HTTP": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    **{
        path: HIDDEN.replace(b"/private/", path.encode())
        for path in ("//private/", "/%2e%2e/private/", "/x/../private/")
    },
}


def test_malformed_requests_reach_nothing_and_idle_ones_stop_nobody(
    aws: LocalAws, record_property: Callable[[str, object], None]
) -> None:
    with contextlib.ExitStack() as slow:
        for _ in range(100):
            connection = slow.enter_context(socket.create_connection(("127.0.0.1", aws.port), 10))
            connection.sendall(HIDDEN[:30])
        for name, request in RAW.items():
            with socket.create_connection(("127.0.0.1", aws.port), 10) as connection:
                answer = b""
                with contextlib.suppress(OSError):
                    connection.sendall(request)
                    connection.shutdown(socket.SHUT_WR)
                    while piece := connection.recv(65536):
                        answer += piece
            statuses = {int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", answer)}
            assert all(400 <= status < 500 for status in statuses), (name, answer)
        assert aws.send("GET", "/public/object").data == b"content"
    record_property("door: malformed requests refused, beside 100 that never end", len(RAW))


def test_what_the_server_writes_is_its_owners_alone(aws: LocalAws) -> None:
    aws.logs.create_log_group(logGroupName="g")
    assert stat.S_IMODE(aws.state_dir.stat().st_mode) == 0o700
    open_to_others = {str(path): mode for path in aws.state_dir.rglob("*") if (mode := path.lstat().st_mode) & 0o077}
    assert open_to_others == {}
    assert {"ministack.db", "credentials.json", "server.log"} <= {path.name for path in aws.state_dir.iterdir()}


def test_a_part_of_a_bucket_is_never_taken_for_the_bucket(aws: LocalAws) -> None:
    aws.s3.create_bucket(Bucket="empty")
    model = aws.s3.meta.service_model
    uris = [model.operation_model(name).http["requestUri"].partition("?")[2] for name in model.operation_names]
    for method in ("DELETE", "PUT"):
        for part in sorted(filter(None, uris)):
            aws.send(method, f"/empty?{part}", sign="s3")
        assert aws.s3.head_bucket(Bucket="empty"), method
    assert aws.send("DELETE", "/empty", sign="s3").status == 204


def test_a_bucket_of_another_owner_than_expected_is_left_alone(aws: LocalAws) -> None:
    own = {"Bucket": "private", "Key": "copy", "CopySource": "private/object"}
    for member in ("ExpectedBucketOwner", "ExpectedSourceBucketOwner"):
        refused(aws.s3.copy_object, "AccessDenied", **own, **{member: "111122223333"})
        aws.s3.copy_object(**own, **{member: "000000000000"})


def test_addresses_of_apis_that_name_none_lead_nowhere(aws: LocalAws) -> None:
    for path in ("/_aws/execute-api/", "/_aws/execute-api/x", "/_aws/execute-api//x"):
        answer = aws.send("POST", f"{path}?Action=GetUser&Version=2010-05-08", b"Action=CreateUser", sign="iam")
        assert answer.status == 404, answer.data


def test_stacks_have_no_types_of_absent_services(aws: LocalAws) -> None:
    for kind in ("AWS::StepFunctions::StateMachine", "AWS::CloudFormation::StackSet"):
        refused(aws.deploy, rf"Unrecognized resource types.*{kind}", "absent", {"Resources": {"It": {"Type": kind}}})
    rule = {"Status": "Enabled", "Destination": {"Bucket": "arn:aws:s3:::other"}}
    for member, value in {
        "NotificationConfiguration": {"EventBridgeConfiguration": {"EventBridgeEnabled": True}},
        "ReplicationConfiguration": {"Role": "arn:aws:iam::000000000000:role/r", "Rules": [rule]},
        "ObjectLockEnabled": True,
    }.items():
        bucket = {"Type": "AWS::S3::Bucket", "Properties": {member: value}}
        assert member in aws.deploy(member, {"Resources": {"It": bucket}})["Reasons"]
    assert "configuration" not in str(aws.s3.list_buckets()["Buckets"])
    refused(aws.cloudformation.create_stack_set, "CreateStackSet", StackSetName="s", TemplateBody="{}")
