"""A table of ways to come in without a signature: none of them reaches a handler, of any service."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from local_aws_harness import ROOT

SCOPE = "20260101/us-east-1/s3/aws4_request"
REST = "SignedHeaders=host, Signature=" + "0" * 64
AUTHORIZATIONS = [
    "",
    "AWS",
    "AWSx",
    "AWS4",
    "AWS4HMAC x",
    "AWS4-HMAC-SHA256",
    "AWS4-HMAC-SHA256 ",
    "AWS4-HMAC-SHA256 x",
    f"AWS4-HMAC-SHA256 Credential=/{SCOPE}, {REST}",
    f"AWS4-HMAC-SHA256 Credential=test/{SCOPE}, {REST}",
    f"AWS4-HMAC-SHA256 Credential=test/{SCOPE}, SignedHeaders=host, Signature=00",
    f"AWS4-HMAC-SHA256 Credential=000000000000/{SCOPE}, {REST}",
    f"AWS4-HMAC-SHA256 Credential=ADMINISTRATOR/{SCOPE}, {REST}",
    f"AWS4-HMAC-SHA256 Credential=ADMINISTRATOR/{SCOPE}",
    f"AWS4-HMAC-SHA256 Credential=ADMINISTRATOR/20260101/us-east-1/s3, {REST}",
    f"AWS4-HMAC-SHA256 Credential=/{SCOPE}, Credential=ADMINISTRATOR/{SCOPE}, {REST}",
    f"AWS4-HMAC-SHA512 Credential=ADMINISTRATOR/{SCOPE}, {REST}",
    f"AWS4-HMAC-SHA256x Credential=ADMINISTRATOR/{SCOPE}, {REST}",
    f"aws4-hmac-sha256 Credential=ADMINISTRATOR/{SCOPE}, {REST}",
    f"AWS4-ECDSA-P256-SHA256 Credential=ADMINISTRATOR/20260101/s3/aws4_request, {REST}",
    "AWS ADMINISTRATOR:00",
    "AWS :00",
    "AWS test:00",
    "Basic dGVzdDp0ZXN0",
    "Bearer token",
    f"Bearer Credential=ADMINISTRATOR/{SCOPE}",
    f"Basic AWS4-HMAC-SHA256 Credential=ADMINISTRATOR/{SCOPE}, {REST}",
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
    "",
    *(f"{name}={value}" for name, value in WHOLE.items()),
    *(f"{a}&{b}" for a, b in itertools.permutations(["X-Amz-Signature=", "X-Amz-Signature=x"])),
    *(f"{a}&{b}" for a, b in itertools.permutations(["x-amz-signature=", "X-Amz-Signature=x"])),
    *(f"{a}&{b}" for a, b in itertools.permutations(["X-Amz-Credential=", f"X-Amz-Credential=ADMINISTRATOR/{SCOPE}"])),
    "X%2DAmz%2DSignature=x",
    "x-amz-credential=x&x-amz-signature=x",
    "&".join(f"{name}={value}" for name, value in WHOLE.items()),
    "&".join(f"{name.lower()}={value}" for name, value in WHOLE.items()),
    "&".join(f"{name}=&{name}={value}" for name, value in WHOLE.items()),
    "&".join(f"{name}={value}" for name, value in {**WHOLE, "X-Amz-Credential": f"/{SCOPE}"}.items()),
    "&".join(f"{name}={value}" for name, value in {**WHOLE, "X-Amz-Algorithm": "AWS4-ECDSA-P256-SHA256"}.items()),
    "AWSAccessKeyId=x",
    "AWSAccessKeyId=&AWSAccessKeyId=ADMINISTRATOR",
    "AWSAccessKeyId=ADMINISTRATOR&Signature=00&Expires=4000000000",
    "AWSAccessKeyId=ADMINISTRATOR&Signature=AAAAAAAAAAAAAAAAAAAAAAAAAAA%3D&Expires=4000000000",
    "awsaccesskeyid=ADMINISTRATOR&Signature=AAAAAAAAAAAAAAAAAAAAAAAAAAA%3D&Expires=4000000000",
]
#: Requests that MiniStack serves, of each way in which it finds the service.
CALLS: list[dict[str, Any]] = [
    {"method": "GET", "path": "/"},
    *({"method": method, "path": "/bucket"} for method in ("GET", "PUT", "DELETE")),
    {"method": "PUT", "path": "/bucket", "query": "policy"},
    {"method": "PUT", "path": "/bucket/key", "body": "x"},
    {"method": "POST", "path": "/", "query": "Action=CreateRole&RoleName=r"},
    *({"method": method, "path": "/", "query": "Action=ListUsers&Version=2010-05-08"} for method in ("GET", "POST")),
    {"method": "POST", "path": "/", "body": "Action=CreateUser", "form": True},
    {"method": "POST", "path": "/2015-03-31/functions", "body": "{}"},
    {"method": "GET", "path": "/2015-03-31/functions/"},
    {"method": "POST", "path": "/", "target": "secretsmanager.GetSecretValue", "body": "{}"},
    {"method": "POST", "path": "/", "target": "SageMaker.CreateTrainingJob", "body": "{}"},
    {"method": "POST", "path": "/endpoints/e/invocations", "body": "{}"},
    {"method": "POST", "path": "/service/GraniteServiceVersion20100801/operation/DescribeAlarms"},
    {"method": "GET", "path": "/latest/meta-data/iam/security-credentials/r"},
    {"method": "GET", "path": "/v3/metadata/task"},
    {"method": "GET", "path": "/v20180820/tags/arn:aws:s3:::bucket"},
    {"method": "GET", "path": "/v2/_catalog"},
    {"method": "GET", "path": "/iceberg/v1/config"},
    {"method": "POST", "path": "/Execute", "body": "{}"},
    {"method": "GET", "path": "/v2/email/identities"},
    {"method": "POST", "path": "/v1/chat/completions", "body": "{}"},
    {"method": "GET", "path": "/oauth2/authorize"},
    {"method": "POST", "path": "/oauth2/token", "form": True, "body": "grant_type=client_credentials"},
    {"method": "GET", "path": "/oidc/id/ABC/.well-known/openid-configuration"},
    {"method": "GET", "path": "/_alb/name/"},
    {"method": "GET", "path": "/health"},
    {"method": "OPTIONS", "path": "/bucket"},
    {"method": "OPTIONS", "path": "/"},
]
#: What MiniStack keeps for its administrator, in several spellings.
PAGES = [
    f"{before}{name}{after}"
    for name in ("_ministack", "_localstack", "_aws", "_MiniStack", "%5Fministack", "%5fAws")
    for before in ("/", "//", "/%2F")
    for after in ("", "/", "/reset", "/health", "/config", "/ses", "/sqs/messages", "/lambda-code/f", "/cfn-response/t")
]


def request(call: dict[str, Any], authorization: str | None, query: str) -> dict[str, Any]:
    headers = [] if authorization is None else [("authorization", authorization)]
    if call.get("form"):
        headers.append(("content-type", "application/x-www-form-urlencoded"))
    if "target" in call:
        headers.append(("x-amz-target", call["target"]))
    return {**call, "headers": headers, "query": "&".join(filter(None, [call.get("query"), query]))}


def put(state_dir: Path, requests: list[dict[str, Any]]) -> tuple[list[tuple[int, bool, bool]], list[str]]:
    """How far each got: its status, whether MiniStack saw it, whether a handler did; and the services there are."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests/support/local_aws_in_process.py", state_dir],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return [tuple(result) for result in answer["results"]], answer["services"]


def assert_kept_out(state_dir: Path, requests: list[dict[str, Any]]) -> None:
    # A handler is reached by what is signed, or this would show nothing.
    requests = [*requests, {"method": "GET", "path": "/", "sign": "s3"}]
    *results, control = put(state_dir, requests)[0]
    assert control == (200, True, True)
    let_in = [(status, request) for request, (status, seen, _) in zip(requests, results, strict=False) if seen]
    assert let_in == []
    assert {status for status, _, _ in results} <= {400, 401, 403, 404}


def test_no_spelling_of_credentials_gets_in_without_a_signature(tmp_path: Path) -> None:
    attempts = [request(call, authorization, "") for call in CALLS for authorization in AUTHORIZATIONS]
    attempts += [request(call, header, query) for call in CALLS for query in QUERIES for header in (None, "AWSx")]
    twice = [request(call, "AWS4-HMAC-SHA256 x", "") for call in CALLS]
    for attempt in twice:
        attempt["headers"] += [("authorization", AUTHORIZATIONS[-1])]
    assert_kept_out(tmp_path, [*attempts, *twice])


def test_no_service_is_reached_without_a_signature(tmp_path: Path) -> None:
    services = put(tmp_path, [])[1]
    assert {"iam", "lambda", "s3", "sagemaker", "sagemaker-runtime"} <= set(services)
    attempts = [
        {
            "method": method,
            "path": path,
            "headers": [
                ("authorization", f"{scheme} Credential={key}/20260101/us-east-1/{service}/aws4_request, {REST}")
            ],
        }
        for service in services
        for scheme in ("AWS4-HMAC-SHA256", "AWS4HMAC", "AWS4-HMAC-SHA256,", "AWS4-HMAC")
        for key in ("", "ADMINISTRATOR")
        for method, path in (("POST", "/"), ("GET", "/x/y"))
    ]
    assert_kept_out(tmp_path, attempts)


def test_the_pages_of_ministack_are_closed_in_every_spelling(tmp_path: Path) -> None:
    plain = [{"method": method, "path": path} for path in PAGES for method in ("GET", "POST")]
    signed = [{**attempt, "sign": "s3"} for attempt in plain]
    foreign = [{**attempt, "headers": [("authorization", "AWSx")]} for attempt in plain]
    assert_kept_out(tmp_path, [*plain, *signed, *foreign])


def test_the_response_of_a_custom_resource_is_no_longer_than_on_aws(tmp_path: Path) -> None:
    attempts = [
        {"method": "PUT", "path": f"/_ministack/{page}/token", "body": "x" * length}
        for page in ("cfn-response", "cfn-signal")
        for length in (4096, 4097, 100_000)
    ]
    results = put(tmp_path, attempts)[0]
    assert [(status == 413, seen) for status, seen, _ in results] == [(False, True), (True, False), (True, False)] * 2


def test_the_host_of_a_function_or_a_path_of_an_api_leads_nowhere_else(tmp_path: Path) -> None:
    bases = [({}, "/_aws/execute-api/x/y"), ({}, f"/_aws/lambda-url/{'a' * 32}"), ({}, "/restapis/x/y/_user_request_")]
    for region in ("us-east-1.localhost", "us-east-1.localhost:4566", "us-east-1.on.aws"):
        bases.append(({"headers": [("host", f"{'a' * 32}.lambda-url.{region}")]}, ""))
    paths = [*(call["path"] for call in CALLS), *PAGES, "/_ministack/rds/iam-auth", "/_ministack/cfn-response/t"]
    attempts = [
        {"method": method, "path": base + path, **headers}
        for headers, base in bases
        for path in paths
        for method in ("GET", "POST", "PUT", "OPTIONS")
    ]
    # Nobody may call a function or an API that does not exist, so no other answer than a refusal is theirs.
    results = put(tmp_path, attempts)[0]
    got_in = [(r, a) for a, r in zip(attempts, results, strict=True) if r[0] not in (403, 404) or r[2]]
    assert got_in == []
    pages = [r for a, r in zip(attempts, results, strict=True) if "headers" in a and a["path"].startswith("/_")]
    assert {seen for _, seen, _ in pages} == {False}


HOSTS = [
    *("", "evil.example", "evil.example:4566", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "localhost.evil"),
    *("x.cloudfront.net", "x.alb.localhost", "d.elb.amazonaws.com", "10.0.0.1", "0.0.0.0:4566", "127.0.0.2"),
    *("bucket.s3.amazonaws.com", "ec2-127-0-0-1.compute.amazonaws.com", "LOCALHOST", "localhost:x", "localhost."),
]
ORIGINS = ["null", "", "http://evil.example", "https://127.0.0.1:4566", "http://127.0.0.1:8000"]


def test_another_host_than_this_machine_is_refused(tmp_path: Path) -> None:
    paths = ("/", "/bucket/key", f"/_aws/lambda-url/{'a' * 32}/", "/_ministack/cfn-response/t")
    calls = [{"method": method, "path": path} for method in ("GET", "PUT") for path in paths]
    attempts = [
        {**call, "headers": [*before, ("host", host)]}
        for call in calls
        for host in HOSTS
        for before in ([], [("host", "127.0.0.1:4566")])
    ]
    assert_kept_out(tmp_path, attempts)


def test_a_page_of_another_site_is_refused_even_with_a_signature(tmp_path: Path) -> None:
    attempts = [
        {"method": method, "path": path, "headers": [("origin", origin)], **sign}
        for method, path in (("GET", "/"), ("POST", "/"), ("OPTIONS", "/"), ("GET", "/bucket/key"))
        for origin in ORIGINS
        for sign in ({}, {"sign": "s3"})
    ]
    assert_kept_out(tmp_path, attempts)


def test_a_websocket_is_closed(tmp_path: Path) -> None:
    ((status, seen, _),), _ = put(tmp_path, [{"type": "websocket", "method": "GET", "path": "/", "sign": "s3"}])
    assert (status, seen) == (0, False)
