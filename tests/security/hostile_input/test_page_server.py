"""Other sites, names and programs get nothing from the server of `kennel ui`, and cause no call of the function."""

import http.client
import json

import pytest
from lambda_fakes import fake_server, reply
from page_server import client_of, page_server

from cli.serving.function_client import MAX_IMAGE_BYTES

FORGED = [
    {"Host": "evil.example:PORT", "Origin": "http://evil.example:PORT"}, {"Host": "127.0.0.1"}, {"Host": ""},
    {"Host": "127.0.0.1.evil.example:PORT"}, {"Host": "0.0.0.0:PORT"}, {"Origin": "http://evil.example"},
    {"Origin": "null"}, {"Origin": ""}, {"Origin": "http://localhost:PORT"}, {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"},
]  # fmt: skip


@pytest.fixture
def ask(tmp_path):
    """Sends a request; gives status and body. `calls` are those that the function has got."""

    def ask(method, path, body=b"", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        headers = {"Origin": "http://127.0.0.1:PORT", **headers}
        connection.request(method, path, body, {key: text.replace("PORT", str(port)) for key, text in headers.items()})
        response = connection.getresponse()
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';") and "unsafe" not in policy
        assert response.headers["cross-origin-resource-policy"] == "same-origin"  # no other site shows the samples
        return response.status, response.read()

    with fake_server(reply()) as function, page_server(lambda: client_of(function.port), tmp_path) as port:
        ask.calls = function.requests
        yield ask


def test_rebinding_forgery_traversal_and_large_bodies_cause_no_call(ask, record_property):
    for headers in FORGED:
        assert ask("POST", "/classify", b"x", **headers)[0] == 403, headers
        assert "Host" not in headers or ask("GET", "/", **headers)[0] == 403, headers
    for path in ("/../server.py", "/%2e%2e/server.py", "//etc/passwd", "/..%2fserver.py", "/sample?label=..&number=0"):
        assert ask("GET", path)[0] == 404, path
    assert f"{3 * MAX_IMAGE_BYTES:,} bytes" in ask("POST", "/classify", bytes(3 * MAX_IMAGE_BYTES))[1].decode()
    assert ask("POST", "/classify", **{"Content-Length": "67108864"})[0] == 403  # before its first byte
    assert ask.calls == []
    assert ask("POST", "/classify", b"https://a.example/x", **{"Content-Type": "text/uri-list"})[0] == 200
    assert json.loads(ask.calls[0].body) == {"url": "https://a.example/x", "top_k": 5} and len(ask.calls) == 1
    record_property("forged requests that kennel ui refuses", len(FORGED))
