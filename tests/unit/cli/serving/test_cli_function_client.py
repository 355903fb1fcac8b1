"""Calling the function URL: signed, and whatever comes back is an answer that a person can read."""

from __future__ import annotations

import json

import boto3
import pytest
from fake_stage import FakeStage
from lambda_fakes import fake_server, raw, reply

from cli.errors import AwsError
from cli.serving.function_client import FunctionClient


def client_of(port: int) -> FunctionClient:
    session = boto3.session.Session("AKIDEXAMPLE", "secret", region_name="us-east-1")
    return FunctionClient(FakeStage(outputs={"FunctionUrl": f"http://127.0.0.1:{port}/"}, session=session))


def test_a_url_is_sent_as_json() -> None:
    with fake_server(reply()) as function:
        client_of(function.port).classify_url("https://example.org/dog.jpg", top_k=2)
    (request,) = function.requests
    assert json.loads(request.body) == {"url": "https://example.org/dog.jpg", "top_k": 2}
    assert request.headers["content-type"] == "application/json"


def test_a_connection_that_breaks_is_tried_once_more() -> None:
    with fake_server(raw(), reply()) as function:
        assert client_of(function.port).classify_bytes(b"x").error is None
    with fake_server(raw()) as function, pytest.raises(AwsError, match="cannot be reached"):
        client_of(function.port).classify_bytes(b"x")
    assert len(function.requests) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_too_much_or_nobody_to_answer_is_tried_again_when_told_to_and_not_for_ever(monkeypatch, status) -> None:
    waited: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waited.append)
    later = reply(status, {"error": {"code": "c", "message": "later"}}, headers={"Retry-After": "10"})
    with fake_server(later, reply()) as function:
        assert client_of(function.port).classify_bytes(b"x").error is None
    with fake_server(later) as function:
        assert client_of(function.port).classify_bytes(b"x").error == f"later (c, HTTP {status})"
    assert waited == [10] * (1 + 3)
    with fake_server(reply(status, {"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"})) as function:
        assert client_of(function.port).classify_bytes(b"x").status == status
    assert waited[4:] == [2, 4]  # Lambda's own refusal


def test_an_unreachable_url_is_named() -> None:
    with pytest.raises(AwsError, match=r"http://127\.0\.0\.1:1/ cannot be reached"):
        client_of(1).classify_bytes(b"x")
