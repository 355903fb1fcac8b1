"""A running model server: the contract over HTTP, many callers at once, and callers who misbehave."""

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving_fixtures import COLOURS, DISPLAY_LABELS, image_bytes, make_artifact, png_that_claims
from serving_process import ModelServer, model_server

MAX_BODY_BYTES = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("server")
    limit = {"MODEL_SERVER_MAX_BODY_BYTES": str(MAX_BODY_BYTES)}
    with model_server(make_artifact(folder / "artifact"), folder / "log", workers=2, **limit) as running:
        yield running
        assert running.errors() == []  # and every line of the log is JSON


@pytest.fixture
def same_workers(server: ModelServer) -> Iterator[None]:
    before = {worker.pid for worker in server.workers()}
    yield
    assert server.ping() == 200
    assert server.invoke(image_bytes()).status == 200
    assert {worker.pid for worker in server.workers()} == before


def connect(server: ModelServer) -> contextlib.closing[http.client.HTTPConnection]:
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30))


def test_headers_of_the_request_and_the_answer_are_the_contracts(server: ModelServer) -> None:
    reply = server.invoke(image_bytes("lime"), content_type="image/png; top_k=2; scores=true")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.document["predictions"][0]["label"] == "Grüner Hund"
    assert (len(reply.document["predictions"]), len(reply.document["scores"])) == (2, 3)
    assert server.request("GET", "/").status == 404


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 3 * MAX_BODY_BYTES])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(server: ModelServer, size: int, chunked: bool) -> None:
    with connect(server) as connection:
        chunks = (b"x" * 1000 for _ in range(size // 1000 + 1))
        connection.request("POST", "/invocations", chunks if chunked else b"x" * size, encode_chunked=chunked)
        response = connection.getresponse()
        assert response.status == 413
        assert f"at most {MAX_BODY_BYTES:,} bytes" in response.read().decode()
    assert server.invoke(image_bytes() + b"\0" * (MAX_BODY_BYTES - len(image_bytes()))).status == 200, "at the limit"


def test_an_endless_body_is_cut_off(server: ModelServer, same_workers: None) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n")
        with pytest.raises(ConnectionError):
            while True:
                connection.sendall(b"x" * 65536)


def test_many_callers_each_get_their_own_answer(server: ModelServer, same_workers: None) -> None:
    good = [(image_bytes(colour), 200, label) for colour, label in zip(COLOURS, DISPLAY_LABELS, strict=True)]
    bad = [(data, 415, None) for data in (b"", b"hello", image_bytes()[:30])]
    asked = [*good, *bad, (png_that_claims(20_000, 20_000), 413, None)] * 20

    def is_right(question: tuple[bytes, int, str | None]) -> bool:
        reply = server.invoke(question[0])
        label = reply.document["predictions"][0]["label"] if reply.status == 200 else None
        return (reply.status, label) == question[1:]

    with ThreadPoolExecutor(16) as callers:
        assert all(callers.map(is_right, asked))


def test_one_connection_carries_many_requests_and_no_answer_waits_for_an_acknowledgement(server: ModelServer) -> None:
    seconds = []
    with connect(server) as connection:
        for _ in range(60):
            started = time.perf_counter()
            connection.request("POST", "/invocations", image_bytes(), {"Content-Type": "image/png"})
            assert connection.getresponse().read()
            seconds.append(time.perf_counter() - started)
    # With Nagle's algorithm on, an answer's body waits for the delayed acknowledgement of its headers: 40 ms, once the
    # kernel has seen some exchanges and takes its time.
    assert min(seconds[30:]) < 0.03
