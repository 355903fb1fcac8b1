"""A running model server: the contract over HTTP, many callers at once, and callers who misbehave."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from serving_fixtures import COLOURS, DISPLAY_LABELS, make_artifact, picture, png_that_claims
from serving_process import ModelServer, model_server

MAX_BODY_BYTES = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("server")
    limits = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "MODEL_SERVER_MAX_BODY_BYTES": str(MAX_BODY_BYTES)}
    with model_server(make_artifact(folder / "artifact"), folder / "log", **limits) as running:
        running.wait_until_ready()
        running.wait_for_log("A worker has loaded", times=2)
        running.workers()
        yield running


def test_a_picture_is_answered_with_json(server: ModelServer) -> None:
    reply = server.invoke(picture("lime"), content_type="image/png; top_k=2; scores=true")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.document["predictions"][0]["label"] == "Grüner Hund"
    assert len(reply.document["predictions"]) == 2
    assert len(reply.document["scores"]) == 3
    assert reply.document["model"]["name"] == "colours"


def test_a_list_of_pictures_is_answered_in_its_order_and_the_accept_header_is_honoured(server: ModelServer) -> None:
    colours = [COLOURS[index % 3] for index in range(64)]
    body = json.dumps({"images": [base64.b64encode(picture(colour)).decode() for colour in colours]}).encode()
    results = server.invoke(body, "application/json").document["results"]
    expected = [DISPLAY_LABELS[index % 3] for index in range(64)]
    assert [result["predictions"][0]["label"] for result in results] == expected
    lines = server.invoke(body, "application/json", accept="application/jsonlines")
    assert lines.headers["content-type"] == "application/jsonlines"
    assert [json.loads(line) for line in lines.document.splitlines()] == results
    array = server.invoke(body, "application/json", accept="application/x-npy, */*;q=0.1")
    assert array.headers["content-type"] == "application/x-npy"
    assert np.load(io.BytesIO(array.document)).argmax(1).tolist() == [index % 3 for index in range(64)]
    assert server.invoke(picture(), accept="text/csv").status == 406
    too_many = server.invoke(json.dumps({"images": [""] * 65}).encode(), "application/json; errors=inline")
    assert (too_many.status, "at most 64" in too_many.document["error"]["message"]) == (200, True)
    assert server.request("GET", "/").status == 404


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 3 * MAX_BODY_BYTES])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(server: ModelServer, size: int, chunked: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        chunks = (b"x" * 1000 for _ in range(size // 1000 + 1))
        connection.request("POST", "/invocations", chunks if chunked else b"x" * size, encode_chunked=chunked)
        response = connection.getresponse()
        assert response.status == 413
        assert f"at most {MAX_BODY_BYTES:,} bytes" in response.read().decode()


def test_a_body_at_the_limit_is_taken(server: ModelServer) -> None:
    # Nothing may follow a picture's last byte but what decoders ignore, so this is a whole picture of that size.
    assert server.invoke(picture() + b"\0" * (MAX_BODY_BYTES - len(picture()))).status == 200


def test_an_endless_body_is_cut_off_and_the_server_lives(server: ModelServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n")
        with pytest.raises(ConnectionError):
            while True:
                connection.sendall(b"x" * 65536)
    assert server.invoke(picture()).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /ping HTTP/1.1\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["half", "bad-chunk", "negative-length", "tls", "giant-header"],
)
def test_broken_http_and_vanishing_callers_do_no_harm(server: ModelServer, data: bytes) -> None:
    before = {worker.pid for worker in server.workers()}
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(data)
    assert server.ping() == 200
    assert server.invoke(picture()).status == 200
    assert {worker.pid for worker in server.workers()} == before


def test_bad_pictures_among_good_ones_disturb_nobody(server: ModelServer) -> None:
    before = {worker.pid for worker in server.workers()}
    bad = [b"", b"hello", picture()[:30], png_that_claims(20_000, 20_000)]

    def ask(index: int) -> tuple[int, int]:
        return index % 2, server.invoke(picture() if index % 2 else bad[index // 2 % len(bad)]).status

    with ThreadPoolExecutor(16) as callers:
        outcomes = set(callers.map(ask, range(160)))
    assert outcomes <= {(1, 200), (0, 415), (0, 413)}
    assert {worker.pid for worker in server.workers()} == before


def test_one_connection_carries_many_requests_and_no_answer_waits_for_an_acknowledgement(server: ModelServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    seconds = []
    with contextlib.closing(connection):
        for _ in range(60):
            started = time.perf_counter()
            connection.request("POST", "/invocations", picture(), {"Content-Type": "image/png"})
            assert connection.getresponse().read()
            seconds.append(time.perf_counter() - started)
    # With Nagle's algorithm on, an answer's body waits for the delayed acknowledgement of its headers: 40 ms, once the
    # kernel has seen some exchanges and takes its time.
    assert min(seconds[30:]) < 0.03


def test_every_log_line_is_json(server: ModelServer) -> None:
    server.invoke(b"hello")
    assert server.errors() == []
    assert '"reason": "This is not an image that can be read' in server.log()
