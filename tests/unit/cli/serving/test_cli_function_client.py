"""Calling the function URL: signed, and whatever comes back is an answer that a person can read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cli.aws import Stage
from cli.errors import AwsError
from cli.serving.function_client import FunctionClient


class Function(BaseHTTPRequestHandler):
    """Records the request and answers what the test has put into `reply`."""

    reply: tuple[int, bytes] = (200, b"{}")
    seen: dict[str, Any] = {}  # noqa: RUF012 - one per process, reset by the fixture

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).seen = {"path": self.path, "headers": dict(self.headers), "body": body}
        status, reply = self.reply
        self.send_response(status)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class FakeStage(Stage):
    """A stage whose function answers at `url`."""

    def __init__(self, url: str) -> None:
        super().__init__("local")
        object.__setattr__(self, "url", url)

    def output(self, kind: str, key: str) -> str:
        assert (kind, key) == ("inference", "FunctionUrl")
        return str(self.url)  # type: ignore[attr-defined]


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Function)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_picture_is_sent_as_it_is_and_signed_for_lambda(url: str) -> None:
    answered = {"predictions": [{"label": "Pug", "probability": 1}], "model": {"name": "m", "version": "1"}}
    Function.reply = (200, json.dumps(answered).encode())
    answer = FunctionClient(FakeStage(url)).classify_bytes(b"\xff\xd8picture", top_k=3, scores=True)
    assert answer.error is None
    assert Function.seen["body"] == b"\xff\xd8picture"
    assert Function.seen["path"] == "/?top_k=3&scores=true"
    assert "AKIDEXAMPLE/" in Function.seen["headers"]["Authorization"]
    assert "/eu-west-1/lambda/aws4_request" in Function.seen["headers"]["Authorization"]


def test_a_url_is_sent_as_json(url: str) -> None:
    Function.reply = (200, b"{}")
    FunctionClient(FakeStage(url)).classify_url("https://example.org/dog.jpg", top_k=2)
    assert json.loads(Function.seen["body"]) == {"url": "https://example.org/dog.jpg", "top_k": 2}
    assert Function.seen["headers"]["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ((415, b'{"error": {"code": "unsupported_image", "message": "not a picture"}}'),
         "not a picture (unsupported_image, HTTP 415)"),
        ((403, b'{"Message": "Forbidden"}'), "Forbidden (HTTP 403)"),
        ((502, b"<html>bad gateway</html>"), "<html>bad gateway</html> (HTTP 502)"),
        ((500, b""), "refused (HTTP 500)"),
    ],
)  # fmt: skip
def test_errors_become_one_line(url: str, reply: tuple[int, bytes], error: str) -> None:
    Function.reply = reply
    assert FunctionClient(FakeStage(url)).classify_bytes(b"x").error == error


def test_an_unreachable_url_is_named(url: str) -> None:
    with pytest.raises(AwsError, match=r"http://127\.0\.0\.1:1/ cannot be reached"):
        FunctionClient(FakeStage("http://127.0.0.1:1/")).classify_bytes(b"x")
