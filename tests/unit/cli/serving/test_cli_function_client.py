"""Calling the function URL: signed, and whatever comes back is an answer that a person can read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import boto3
import pytest
from fake_stage import FakeStage

from cli.errors import AwsError
from cli.serving.function_client import FunctionClient


class Function(BaseHTTPRequestHandler):
    """Records the request and answers what the test has put into `reply`."""

    reply: tuple[int, bytes] = (200, b"{}")
    seen: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        self.seen.update(self.headers, path=self.path, body=self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.reply[0])
        self.send_header("Content-Length", str(len(self.reply[1])))
        self.end_headers()
        self.wfile.write(self.reply[1])

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def client_of(url: str) -> FunctionClient:
    session = boto3.session.Session("AKIDEXAMPLE", "secret", region_name="us-east-1")
    return FunctionClient(FakeStage(outputs={"FunctionUrl": url}, session=session))


@pytest.fixture
def client() -> Iterator[FunctionClient]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Function) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield client_of(f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
        thread.join()


def test_an_image_is_sent_as_it_is_and_signed_for_lambda(client: FunctionClient) -> None:
    answered = {"predictions": [{"label": "Pug", "probability": 1}], "model": {"name": "m", "version": "1"}}
    Function.reply = (200, json.dumps(answered).encode())
    assert client.classify_bytes(b"\xff\xd8image", top_k=3, scores=True).error is None
    assert (Function.seen["path"], Function.seen["body"]) == ("/?top_k=3&scores=true", b"\xff\xd8image")
    assert "AKIDEXAMPLE/" in Function.seen["Authorization"]
    assert "/us-east-1/lambda/aws4_request" in Function.seen["Authorization"]


def test_a_url_is_sent_as_json(client: FunctionClient) -> None:
    client.classify_url("https://example.org/dog.jpg", top_k=2)
    assert json.loads(Function.seen["body"]) == {"url": "https://example.org/dog.jpg", "top_k": 2}
    assert Function.seen["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "content", "error"),
    [
        (415, b'{"error": {"code": "unsupported_image", "message": "none"}}', "none (unsupported_image, HTTP 415)"),
        (403, b'{"Message": "Forbidden"}', "Forbidden (HTTP 403)"),
        (502, b"<html>bad gateway</html>", "<html>bad gateway</html> (HTTP 502)"),
        (500, b"", "refused (HTTP 500)"),
    ],
)
def test_errors_become_one_line(client: FunctionClient, status: int, content: bytes, error: str) -> None:
    Function.reply = (status, content)
    assert client.classify_bytes(b"x").error == error


def test_an_unreachable_url_is_named() -> None:
    with pytest.raises(AwsError, match=r"http://127\.0\.0\.1:1/ cannot be reached"):
        client_of("http://127.0.0.1:1/").classify_bytes(b"x")
