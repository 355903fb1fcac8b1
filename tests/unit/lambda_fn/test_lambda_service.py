"""Whole requests, event in and answer out, against a fake endpoint with real sockets."""

import base64
import io
import json
import logging
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from lambda_fakes import ANSWER, CREDENTIALS, JPEG, aws_error, certificate_authority, drip, fake_server, reply
from lambda_fakes import http_event as post
from PIL import Image

from lambda_fn.aws.endpoint import EndpointClient
from lambda_fn.errors import UnsupportedEventError
from lambda_fn.fetching import ImageFetcher
from lambda_fn.service import Service

INLINE = {"image": base64.b64encode(JPEG).decode()}
REQUEST_ID = "8f507cfc-0000-4697-b07a-ac58fc914c95"


def json_event(document):
    return post(json.dumps(document).encode(), "application/json")


HEALTH = post(b"", "", method="GET", path="/health")
HEALTH_HEAD = post(b"", "", method="HEAD", path="/health/")


class Caller:
    """Calls a service and checks what holds for every answer."""

    def __init__(self, server, fetcher=None, **changes):
        configured = server.settings(**changes)
        fetcher = fetcher or ImageFetcher(configured.max_image_bytes, configured.fetch_timeout_seconds)
        self.service = Service(configured, EndpointClient(configured, CREDENTIALS), fetcher)

    def __call__(self, event, remaining_seconds=10.0):
        answer = self.service.answer(event, request_id=REQUEST_ID, remaining_seconds=remaining_seconds)
        assert set(answer) == {"statusCode", "headers", "body"}
        if answer["body"] == "":
            return answer["statusCode"], answer["headers"], None
        headers, body = answer["headers"], json.loads(answer["body"].encode())
        common = {"content-type": "application/json", "cache-control": "no-store", "x-request-id": REQUEST_ID}
        assert common.items() <= headers.items()
        assert body["request_id"] == REQUEST_ID
        assert ("error" in body) == (answer["statusCode"] != 200)
        if "error" in body:
            assert set(body) == {"error", "request_id"} and set(body["error"]) == {"code", "message"}
            assert body["error"]["message"].strip() and "Traceback" not in answer["body"]
        return answer["statusCode"], headers, body


def metric_lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("event", [post(), json_event(INLINE), INLINE])
def test_an_image_is_classified_and_the_contracts_members_come_back(event):
    answer = {**ANSWER, "scores": [0.25, 0.75]}
    with fake_server(reply(document={**answer, "debug": "/opt/ml/model"})) as server:
        status, _, body = Caller(server)(event)
    assert (status, body) == (200, {**answer, "request_id": REQUEST_ID})
    assert server.requests[0].body == JPEG


def test_an_image_from_a_url_is_classified_and_only_its_host_is_logged(tmp_path, caplog):
    authority = certificate_authority(tmp_path, "dogs.example")
    with (
        fake_server(reply()) as server,
        fake_server(reply(raw=JPEG, headers={"Content-Type": "image/jpeg"}), tls=authority.server) as web,
        caplog.at_level(logging.INFO),
    ):
        reachable = {"resolver": lambda *_: ["127.0.0.1"], "is_permitted": lambda _: True, "port": web.port}
        fetcher = ImageFetcher(1000, 5, **reachable, tls=authority.client())
        status, headers, _ = Caller(server, fetcher)({"url": "https://dogs.example/private/dog.jpg?token=hush"})
    assert (status, server.requests[0].body) == (200, JPEG)
    (record,) = [record for record in caplog.records if record.message == "request"]
    assert (record.source, record.url_host, record.image_bytes) == ("url", "dogs.example", len(JPEG))
    told = "fetch;dur={0.fetch_ms}, endpoint;dur={0.endpoint_ms}, total;dur={0.duration_ms}"
    assert headers["server-timing"] == told.format(record)
    assert 0 < record.fetch_ms < record.duration_ms
    assert "hush" not in str(record.__dict__) and "private" not in str(record.__dict__)


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        (post(b""), 400, "bad_request"), (post(b"{", "application/json"), 400, "bad_request"),
        ({"top_k": 3}, 400, "bad_request"),
        ({"requestContext": {"elb": {}}, "httpMethod": "POST", "path": "/"}, 400, "bad_request"),
        (post(path="/classify"), 404, "not_found"), (post(method="OPTIONS"), 405, "method_not_allowed"),
        (post(path="/health"), 405, "method_not_allowed"), (post(b"x" * 2001), 413, "image_too_large"),
        (post(content_type="application/x-www-form-urlencoded"), 415, "unsupported_media_type"),
        (json_event({"url": "http://example.com/dog.jpg"}), 422, "url_not_allowed"),
    ],
)  # fmt: skip
def test_a_bad_request_is_answered_before_the_endpoint_hears_of_it(event, status, code, caplog):
    with fake_server(reply()) as server, caplog.at_level(logging.INFO):
        actual, headers, body = Caller(server, max_image_bytes=2000)(event)
    assert (actual, body["error"]["code"]) == (status, code)
    assert status != 405 or headers["allow"] == ("GET, HEAD" if event["rawPath"] == "/health" else "POST")
    assert not server.requests and "server-timing" not in headers
    assert getattr(caplog.records[-1], "detail", "") is not None


def test_a_failure_of_the_endpoint_is_answered_logged_and_counted(capsys, caplog):
    with fake_server(aws_error(503, "ServiceUnavailable", "arn:aws:secret")) as server, caplog.at_level(logging.INFO):
        status, headers, body = Caller(server)(post())
    assert (status, body["error"]["code"], headers.get("retry-after")) == (503, "not_ready", "10")
    assert "secret" not in json.dumps(body)
    (line,) = metric_lines(capsys)
    assert (line["Requests"], line["Errors"], line["Code"]) == (1, 1, "not_ready")
    (record,) = [record for record in caplog.records if record.message == "request"]
    assert (record.levelname, "arn:aws:secret" in record.detail) == ("ERROR", True)


@pytest.mark.parametrize(("remaining", "own_limit"), [(0.8, 20.0), (60.0, 0.2), (-1.0, 20.0)])
def test_it_answers_before_lambda_ends_it(remaining, own_limit):
    with fake_server(reply()) as server:
        server.answers[:] = [drip(server, None)]
        started = time.monotonic()
        status, _, body = Caller(server, endpoint_timeout_seconds=own_limit)(post(), remaining_seconds=remaining)
        assert (status, body["error"]["code"]) == (504, "timed_out")
        assert time.monotonic() - started < 10  # not half a minute


def test_a_bug_is_logged_with_its_stack_and_told_to_nobody(caplog):
    broken = SimpleNamespace(fetch=lambda *_: Path("/var/task/secret").read_bytes())
    with fake_server(reply()) as server:
        status, _, body = Caller(server, broken)({"url": "https://example.com/x"})
    assert (status, body["error"]["code"]) == (500, "internal_error")
    assert "secret" not in json.dumps(body)
    assert any(record.exc_info and record.request_id == REQUEST_ID for record in caplog.records)


def test_health_asks_the_model_not_too_often_is_503_whatever_is_wrong_and_recovers(monkeypatch, capsys):
    with fake_server(aws_error(403, "AccessDenied"), reply()) as server:
        caller = Caller(server)
        for _ in range(3):
            status, headers, body = caller(HEALTH)
            assert (status, body["error"]["code"], headers["retry-after"]) == (503, "not_ready", "10")
        assert len(server.requests) == 1
        with Image.open(io.BytesIO(server.requests[0].body)) as image:
            image.load()  # what decoders accept
        later = time.time() + 60
        monkeypatch.setattr("lambda_fn.service.time.time", lambda: later)
        for _ in range(3):
            status, _, body = caller(HEALTH)
            assert (status, body["status"], body["model"]) == (200, "ok", ANSWER["model"])
        assert len(server.requests) == 2
    assert not metric_lines(capsys), "probes would drown the latency of real requests"


def test_head_is_answered_like_get_without_a_body():
    with fake_server(aws_error(403, "AccessDenied")) as server:
        caller = Caller(server)
        (status, headers, body), head = caller(HEALTH), caller(HEALTH_HEAD)
        assert head == (status, headers, None) and body
        assert caller(post(method="HEAD"))[0] == 405


RECORDS = [{"messageId": "1", "body": "{}", "eventSource": "aws:sqs"}]


@pytest.mark.parametrize(
    "event",
    [
        {"Records": RECORDS}, RECORDS, {"version": "0", "detail-type": "Scheduled Event", "source": "aws.events"},
        {"invocationSchemaVersion": "1.0", "tasks": []}, {"requestContext": {}, "requestPayload": {}}, {}, None, "text",
    ],
)  # fmt: skip
def test_an_event_of_another_service_fails_so_that_its_sender_keeps_it(event):
    with fake_server(reply()) as server, pytest.raises(UnsupportedEventError, match="send an HTTP request"):
        Caller(server)(event)
    assert not server.requests


def test_metrics_are_in_the_embedded_metric_format(capsys):
    with fake_server(reply()) as server:
        caller = Caller(server, function_name="f", metrics_namespace="Dogs")
        caller(post())
        caller(post(b""))
    success, bad = metric_lines(capsys)
    assert abs(success["_aws"]["Timestamp"] / 1000 - time.time()) < 60
    (directive,) = success["_aws"]["CloudWatchMetrics"]
    units = {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}
    assert (units["Requests"], units["EndpointLatency"]) == ("Count", "Milliseconds")
    assert (directive["Namespace"], success["FunctionName"]) == ("Dogs", "f")
    assert (success["Requests"], success["Errors"]) == (1, 0)
    assert 0 < success["EndpointLatency"] <= success["Latency"]
    dimensions = [directive["Dimensions"] for directive in bad["_aws"]["CloudWatchMetrics"]]
    assert dimensions == [[["FunctionName"]], [["FunctionName", "Code"]]]
    assert "EndpointLatency" not in bad and bad["Code"] == "bad_request"
