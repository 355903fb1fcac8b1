"""The benchmarks' callers: what they count, and that a wrong answer cannot win."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.load import TOLERANCE, Call, Expected, Load, WrongAnswerError, run_load

Respond = Callable[[], tuple[int, bytes]]


def answer(label: str = "Pug", probability: float = 0.75) -> bytes:
    return json.dumps({"predictions": [{"label": label, "probability": probability}]}).encode()


@contextlib.contextmanager
def serving(respond: Respond) -> Iterator[tuple[Call, set[int]]]:
    """A call, and the ports from which it came."""
    ports: set[int] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            ports.add(self.client_address[1])
            status, content = respond()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield Call(f"http://127.0.0.1:{server.server_port}/", {}, b"image", Expected("Pug", 0.75)), ports
        server.shutdown()
        thread.join()


def test_every_caller_keeps_one_connection_and_late_answers_have_a_latency_only() -> None:
    # Each caller's first answer comes after 0.5 s and the second after 1 s; what is measured is 0.25 to 0.75 s.
    with serving(lambda: time.sleep(0.5) or (200, answer())) as (call, ports):  # type: ignore[func-returns-value]
        load = run_load([call], 2, seconds=0.5, warm_up_seconds=0.25)
    assert len(ports) == 2
    assert (load.answers, len(load.latencies_ms)) == (2, 2)
    assert min(load.latencies_ms) >= 500


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, answer("Borzoi"), "Borzoi"),
        (200, answer(probability=0.75 + 2 * TOLERANCE), "0.7540"),
        (200, answer(probability=float("nan")), "nan"),
        (200, b'{"predictions": []}', "not an answer"),
        (503, b"busy", "503: busy"),
    ],
)
def test_one_wrong_answer_among_right_ones_ends_the_load(status: int, body: bytes, reason: str) -> None:
    answers = iter([(200, answer())] * 20 + [(status, body)] * 100)
    with serving(lambda: next(answers)) as (call, _), pytest.raises(WrongAnswerError, match=reason):
        run_load([call], 3, seconds=30, warm_up_seconds=0)


def test_a_load_is_summed_up() -> None:
    figures = Load(2.0, 6, (30.0, 10.0, 20.0, 40.0), 0.5, 0.375).figures()
    assert (figures["per_second"], figures["p50_ms"], figures["p95_ms"]) == (3.0, 25.0, 40.0)
    assert (figures["generator_share"], figures["cpu_ms"]) == (0.25, 62.5)
