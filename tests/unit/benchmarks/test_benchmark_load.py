"""The benchmarks' callers: what they count, and that a wrong answer cannot win."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.load import TOLERANCE, Call, Expected, Load, WrongAnswerError, run_load

PUG = Expected("Pug", 0.75)


def answer(label: str = "Pug", probability: float = 0.75) -> bytes:
    return json.dumps({"predictions": [{"label": label, "probability": probability}]}).encode()


class Server:
    """Answers each request by `respond(body)`, a status and a body, and notes what it saw."""

    def __init__(self, respond: Callable[[bytes], tuple[int, bytes]]) -> None:
        self.respond = respond
        self.connections: set[int] = set()
        self.bodies: list[bytes] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.port = 0

    def call(self, body: bytes = b"picture", expected: Expected = PUG) -> Call:
        return Call(f"http://127.0.0.1:{self.port}/classify?top_k=1", {"Content-Type": "image/jpeg"}, body, expected)


@contextlib.contextmanager
def serving(respond: Callable[[bytes], tuple[int, bytes]]) -> Iterator[Server]:
    server = Server(respond)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            assert self.path.startswith("/classify")
            assert self.headers["Content-Type"] == "image/jpeg"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with server.lock:
                server.bodies.append(body)
                server.connections.add(self.client_address[1])
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            status, content = server.respond(body)
            with server.lock:
                server.at_once -= 1
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        http_server.daemon_threads = True
        server.port = http_server.server_address[1]
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http_server.shutdown()
            thread.join()


def slowly(seconds: float) -> Callable[[bytes], tuple[int, bytes]]:
    def respond(_: bytes) -> tuple[int, bytes]:
        time.sleep(seconds)  # what a server that takes so long does
        return 200, answer()

    return respond


def test_every_caller_keeps_one_connection_and_has_one_request_under_way() -> None:
    with serving(slowly(0.01)) as server:
        load = run_load([server.call()], 4, seconds=0.3, warm_up_seconds=0.1, pid=os.getpid())
    assert len(server.connections) == 4
    assert server.most_at_once == 4
    assert server.at_once == 0  # nothing is left to answer
    # The warm-up's requests are not counted.
    assert 4 <= load.answers < len(server.bodies)
    assert abs(load.answers - len(load.latencies_ms)) <= 4
    assert min(load.latencies_ms) >= 10
    assert load.per_second == load.answers / load.seconds
    assert 0 < load.generator_share < 1
    # Callers and server are one process here. Of other processes the system tells hundredths of a second only.
    assert load.server_cpu_seconds == pytest.approx(load.generator_cpu_seconds, rel=0.5, abs=0.03)
    assert load.cpu_ms == pytest.approx(1000 * load.server_cpu_seconds / load.answers)


def test_what_is_under_way_at_the_end_has_a_latency_but_is_no_answer_in_time() -> None:
    # Each caller's first answer comes after 0.5 s and the second after 1 s; what is measured is 0.25 to 0.75 s.
    with serving(slowly(0.5)) as server:
        load = run_load([server.call()], 2, seconds=0.5, warm_up_seconds=0.25)
    assert load.answers == 2
    assert len(load.latencies_ms) == 2
    assert len(server.bodies) == 4
    assert server.at_once == 0


def test_all_calls_have_their_turn() -> None:
    right = {b"pug": PUG, b"borzoi": Expected("Borzoi", 0.5)}
    with serving(lambda body: (200, answer(right[body].label, right[body].probability))) as server:
        run_load([server.call(body, expected) for body, expected in right.items()], 2, 0.1, 0.0)
    assert abs(server.bodies.count(b"pug") - server.bodies.count(b"borzoi")) <= 2


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, answer("Borzoi"), "Borzoi"),
        (200, answer(probability=0.75 + 2 * TOLERANCE), "0.7540"),
        (200, answer(probability=float("nan")), "nan"),
        (200, b'{"predictions": []}', "not an answer"),
        (200, b'{"predictions": [{"label": "Pug"}]}', "not an answer"),
        (200, b"[]", "not an answer"),
        (200, b"Pug", "not an answer"),
        (503, b"busy", "503: busy"),
    ],
)
def test_a_wrong_answer_ends_the_load(status: int, body: bytes, reason: str) -> None:
    with serving(lambda _: (status, body)) as server, pytest.raises(WrongAnswerError, match=reason):
        run_load([server.call()], 2, seconds=30, warm_up_seconds=0)


def test_one_wrong_answer_among_right_ones_ends_the_load() -> None:
    seen = iter(range(1_000_000))
    with (
        serving(lambda _: (200, answer("Borzoi" if next(seen) == 20 else "Pug"))) as server,
        pytest.raises(WrongAnswerError, match="Borzoi"),
    ):
        run_load([server.call()], 3, seconds=30, warm_up_seconds=0)


def test_a_server_that_is_not_there_or_hangs_up_is_no_answer() -> None:
    with serving(slowly(0)) as server:
        call = server.call()
    with pytest.raises(WrongAnswerError, match="no answer from"):
        run_load([call], 1, 30, 0)

    def hang_up(_: bytes) -> tuple[int, bytes]:
        raise ConnectionAbortedError

    with serving(hang_up) as server, pytest.raises(WrongAnswerError, match="no answer from"):
        run_load([server.call()], 1, 30, 0)


def test_the_tolerance_is_for_rounding_only() -> None:
    PUG.compare("Pug", 0.75 + TOLERANCE * 0.9)
    with pytest.raises(WrongAnswerError):
        PUG.compare("Pug", 0.75 - TOLERANCE * 1.1)


def test_a_load_is_summed_up() -> None:
    load = Load(2.0, 6, (30.0, 10.0, 20.0, 40.0), 0.5, 0.375)
    figures = load.figures()
    assert figures == {
        "answers": 6,
        "seconds": 2.0,
        "per_second": 3.0,
        "p50_ms": 25.0,
        "p95_ms": 40.0,
        "generator_share": 0.25,
        "cpu_ms": 62.5,
    }
    idle = Load(2.0, 0, (), 0.0, 0.1).figures()
    assert (idle["p50_ms"], idle["p95_ms"], idle["cpu_ms"]) == (None, None, None)
