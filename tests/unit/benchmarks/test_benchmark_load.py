"""The benchmarks' callers: what they count, and that a wrong answer cannot win."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler

import pytest
from lambda_fakes import FakeServer, fake_server, reply

from benchmarks.load import TOLERANCE, Call, Expected, Load, WrongAnswerError, run_load


def answer(label: str = "Pug", probability: float = 0.75) -> dict[str, object]:
    return {"predictions": [{"label": label, "probability": probability}]}


def call(server: FakeServer) -> Call:
    return Call(f"http://127.0.0.1:{server.port}/", {}, b"image", Expected("Pug", 0.75))


def slow(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.5)
    reply(200, answer())(handler)


def test_every_caller_keeps_one_connection_and_late_answers_have_a_latency_only() -> None:
    # Each caller's first answer comes after 0.5 s and the second after 1 s; what is measured is 0.25 to 0.75 s.
    with fake_server(slow) as server:
        load = run_load([call(server)], 2, seconds=0.5, warm_up_seconds=0.25)
    assert server.connections == 2
    assert (load.answers, len(load.latencies_ms), len(server.requests)) == (2, 2, 4)
    assert min(load.latencies_ms) >= 500


@pytest.mark.parametrize(
    ("status", "document", "reason"),
    [
        (200, answer("Borzoi"), "Borzoi"),
        (200, answer(probability=0.75 + 2 * TOLERANCE), "0.7540"),
        (200, answer(probability=float("nan")), "nan"),
        (200, {"predictions": []}, "not an answer"),
        (503, "busy", "503: .busy"),
    ],
)
def test_one_wrong_answer_among_right_ones_ends_the_load(status: int, document: object, reason: str) -> None:
    right = [reply(200, answer())] * 20
    with fake_server(*right, reply(status, document)) as server, pytest.raises(WrongAnswerError, match=reason):
        run_load([call(server)], 3, seconds=30, warm_up_seconds=0)


def test_a_load_is_summed_up() -> None:
    figures = Load(2.0, 6, (30.0, 10.0, 20.0, 40.0), 0.5, 0.375).figures()
    assert (figures["per_second"], figures["p50_ms"], figures["p95_ms"]) == (3.0, 25.0, 40.0)
    assert (figures["generator_share"], figures["cpu_ms"]) == (0.25, 62.5)
