"""A table of ways to come in without a signature: none of them reaches a handler, of any service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from clone import ROOT

TABLE: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("unsigned.yaml").read_text(encoding="utf-8"))
CALLS: list[dict[str, Any]] = TABLE["calls"]
PAGES = [f"{before}{name}{after}" for name, before, after in product(*TABLE["pages"])]
HOSTS = [host for hosts in TABLE["hosts"] for host in hosts]


def request(call: dict[str, Any], authorization: str | None, query: str) -> dict[str, Any]:
    headers = [] if authorization is None else [("authorization", authorization)]
    if call.get("form"):
        headers.append(("content-type", "application/x-www-form-urlencoded"))
    if "target" in call:
        headers.append(("x-amz-target", call["target"]))
    return {**call, "headers": headers, "query": "&".join(filter(None, [call.get("query"), query]))}


TWICE = [("authorization", "AWS4-HMAC-SHA256 x"), ("authorization", TABLE["authorizations"][-1])]
PLAIN_PAGES = [{"method": method, "path": path} for path in PAGES for method in ("GET", "POST")]
FUNCTION_URL = f"/_aws/lambda-url/{'a' * 32}"
ATTEMPTS: dict[str, list[dict[str, Any]]] = {
    "credentials in a header": [request(call, header, "") for call in CALLS for header in TABLE["authorizations"]],
    "credentials in the query": [request(*it) for it in product(CALLS, (None, "AWSx"), TABLE["queries"])],
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
        for origin in TABLE["origins"]
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
