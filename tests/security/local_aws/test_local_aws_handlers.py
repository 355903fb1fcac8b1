"""A table of ways to come in without a signature: none of them reaches a handler, of any service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from clone import ROOT

SCOPE = "20260101/us-east-1/s3/aws4_request"
REST = "SignedHeaders=host, Signature=" + "0" * 64
AUTHORIZATIONS = [
    *("", "AWS", "AWSx", "AWS4-HMAC-SHA256", "AWS ADMINISTRATOR:00", "Bearer token"),
    *(f"AWS4-HMAC-SHA256 Credential={key}/{SCOPE}, {REST}" for key in ("", "test", "ADMINISTRATOR")),
    f"AWS4-HMAC-SHA256 Credential=/{SCOPE}, Credential=ADMINISTRATOR/{SCOPE}, {REST}",
    f"AWS4-ECDSA-P256-SHA256 Credential=ADMINISTRATOR/20260101/s3/aws4_request, {REST}",
    f"Basic Credential=ADMINISTRATOR/{SCOPE}, {REST}",
]
WHOLE = {
    "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
    "X-Amz-Credential": f"ADMINISTRATOR/{SCOPE}",
    "X-Amz-Date": "20260101T000000Z",
    "X-Amz-Expires": "600",
    "X-Amz-SignedHeaders": "host",
    "X-Amz-Signature": "0" * 64,
}
QUERIES = [
    *("", "X-Amz-Signature=&X-Amz-Signature=x", "X%2DAmz%2DSignature=x"),
    *("&".join(form.format(name, value) for name, value in WHOLE.items()) for form in ("{}={}", "{0}=&{0}={1}")),
    "&".join(f"{name.lower()}={value}" for name, value in WHOLE.items()),
    "AWSAccessKeyId=ADMINISTRATOR&Signature=AAAAAAAAAAAAAAAAAAAAAAAAAAA%3D&Expires=4000000000",
]
#: Requests that MiniStack serves, of each way in which it finds the service.
CALLS: list[dict[str, Any]] = [
    {"method": "GET", "path": "/"},
    *({"method": method, "path": "/bucket"} for method in ("GET", "PUT", "DELETE")),
    {"method": "PUT", "path": "/bucket/key", "body": "x"},
    {"method": "POST", "path": "/", "query": "Action=CreateRole&RoleName=r"},
    *({"method": method, "path": "/", "query": "Action=ListUsers&Version=2010-05-08"} for method in ("GET", "POST")),
    {"method": "POST", "path": "/", "body": "Action=CreateUser", "form": True},
    {"method": "POST", "path": "/2015-03-31/functions", "body": "{}"},
    {"method": "POST", "path": "/", "target": "secretsmanager.GetSecretValue", "body": "{}"},
    {"method": "POST", "path": "/", "target": "SageMaker.CreateTrainingJob", "body": "{}"},
    {"method": "POST", "path": "/endpoints/e/invocations", "body": "{}"},
    {"method": "POST", "path": "/service/GraniteServiceVersion20100801/operation/DescribeAlarms"},
    {"method": "GET", "path": "/latest/meta-data/iam/security-credentials/r"},
    {"method": "GET", "path": "/v20180820/tags/arn:aws:s3:::bucket"},
    {"method": "GET", "path": "/v2/_catalog"},
    {"method": "GET", "path": "/iceberg/v1/config"},
    {"method": "GET", "path": "/oauth2/authorize"},
    {"method": "POST", "path": "/oauth2/token", "form": True, "body": "grant_type=client_credentials"},
    {"method": "GET", "path": "/oidc/id/ABC/.well-known/openid-configuration"},
    {"method": "GET", "path": "/health"},
    {"method": "OPTIONS", "path": "/"},
]
#: What MiniStack keeps for its administrator, in several spellings.
PAGES = [
    f"{before}{name}{after}"
    for name in ("_ministack", "_localstack", "_aws", "_MiniStack", "%5Fministack", "%5fAws")
    for before in ("/", "//", "/%2F")
    for after in ("", "/", "/reset", "/health", "/config", "/ses", "/sqs/messages", "/lambda-code/f", "/cfn-response/t")
]


#: Other hosts than this machine's, and the origins of other pages.
HOSTS = [
    *("", "evil.example", "evil.example:4566", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "localhost.evil"),
    *("bucket.s3.localhost:4566", "bucket.localhost", f"{'a' * 32}.lambda-url.us-east-1.localhost:4566"),
    *(f"{'a' * 32}.lambda-url.us-east-1.on.aws", "public.s3.localhost"),
    *("x.cloudfront.net", "x.alb.localhost", "d.elb.amazonaws.com", "10.0.0.1", "0.0.0.0:4566", "127.0.0.2"),
    *("bucket.s3.amazonaws.com", "ec2-127-0-0-1.compute.amazonaws.com", "LOCALHOST", "localhost:x", "localhost."),
]
ORIGINS = ["null", "", "http://evil.example", "https://127.0.0.1:4566", "http://127.0.0.1:8000"]


def request(call: dict[str, Any], authorization: str | None, query: str) -> dict[str, Any]:
    headers = [] if authorization is None else [("authorization", authorization)]
    if call.get("form"):
        headers.append(("content-type", "application/x-www-form-urlencoded"))
    if "target" in call:
        headers.append(("x-amz-target", call["target"]))
    return {**call, "headers": headers, "query": "&".join(filter(None, [call.get("query"), query]))}


TWICE = [("authorization", "AWS4-HMAC-SHA256 x"), ("authorization", AUTHORIZATIONS[-1])]
PLAIN_PAGES = [{"method": method, "path": path} for path in PAGES for method in ("GET", "POST")]
FUNCTION_URL = f"/_aws/lambda-url/{'a' * 32}"
ATTEMPTS: dict[str, list[dict[str, Any]]] = {
    "credentials in a header": [request(call, header, "") for call in CALLS for header in AUTHORIZATIONS],
    "credentials in the query": [request(c, header, q) for c in CALLS for q in QUERIES for header in (None, "AWSx")],
    "credentials twice": [{**request(call, None, ""), "headers": TWICE} for call in CALLS],
    "pages of MiniStack": PLAIN_PAGES,
    "pages, signed": [{**attempt, "sign": "s3"} for attempt in PLAIN_PAGES],
    "other hosts": [
        {"method": method, "path": path, "headers": [*before, ("host", host)]}
        for method in ("GET", "PUT")
        for path in ("/", "/bucket/key", f"{FUNCTION_URL}/", "/_ministack/cfn-response/t")
        for host in HOSTS
        for before in ([], [("host", "127.0.0.1:4566")])
    ],
    "pages of other sites": [
        {"method": method, "path": path, "headers": [("origin", origin)], **sign}
        for method, path in (("GET", "/"), ("POST", "/"), ("OPTIONS", "/"), ("GET", "/bucket/key"))
        for origin in ORIGINS
        for sign in ({}, {"sign": "s3"})
    ],
}


def put(state_dir: Path, requests: list[dict[str, Any]]) -> list[tuple[int, bool, bool]]:
    """How far each got: its status, whether MiniStack saw it, whether a handler did."""
    command = [sys.executable, ROOT / "tests/support/local_aws/local_aws_in_process.py", state_dir]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, input=json.dumps(requests), capture_output=True, text=True, timeout=200, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return [tuple(result) for result in json.loads(done.stdout)["results"]]


def test_none_is_handed_on(tmp_path: Path) -> None:
    # A handler is reached by what is signed, or this would show nothing.
    attempts = [(name, call) for name, calls in ATTEMPTS.items() for call in calls]
    *results, control = put(tmp_path, [*(call for _, call in attempts), {"method": "GET", "path": "/", "sign": "s3"}])
    assert control == (200, True, True)
    assert [attempt for attempt, (_, seen, _) in zip(attempts, results, strict=True) if seen] == []
    assert {status for status, _, _ in results} <= {400, 401, 403, 404}


def test_the_response_of_a_custom_resource_is_no_longer_than_on_aws(tmp_path: Path) -> None:
    attempts = [
        {"method": "PUT", "path": f"/_ministack/{page}/token", "body": "x" * length}
        for page in ("cfn-response", "cfn-signal")
        for length in (4096, 4097, 100_000)
    ]
    results = put(tmp_path, attempts)
    assert [(status == 413, seen) for status, seen, _ in results] == [(False, True), (True, False), (True, False)] * 2


def test_the_path_of_a_function_or_of_an_api_leads_nowhere_else(tmp_path: Path) -> None:
    paths = [*(call["path"] for call in CALLS), *PAGES, "/_ministack/rds/iam-auth", "/_ministack/cfn-response/t"]
    attempts = [
        {"method": method, "path": base + path}
        for base in ("/_aws/execute-api/x/y", FUNCTION_URL, "/restapis/x/y/_user_request_")
        for path in paths
        for method in ("GET", "POST", "PUT", "OPTIONS")
    ]
    # Nobody may call a function that does not exist, so no other answer than a refusal is theirs.
    results = list(zip(attempts, put(tmp_path, attempts), strict=True))
    assert [(call, result) for call, result in results if result[0] not in (403, 404) or result[2]] == []


def test_a_websocket_is_closed(tmp_path: Path) -> None:
    ((status, seen, _),) = put(tmp_path, [{"type": "websocket", "method": "GET", "path": "/", "sign": "s3"}])
    assert (status, seen) == (0, False)
