"""The serving benchmark, on a model that loads at once, and how it reads the results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from serving_fixtures import image_bytes, make_artifact

from benchmarks.load import Expected, Load, WrongAnswerError
from benchmarks.measuring import Memory
from benchmarks.serving import goals
from benchmarks.serving_systems import Plan, Served, Turn, our_server
from model.core.packaging import add_serving_program
from model.core.predictor import Predictor


def test_our_server_is_started_loaded_measured_and_its_wrong_answers_have_no_figures(tmp_path: Path) -> None:
    images = [image_bytes("red"), image_bytes("lime")]
    plan = Plan(images, clients=(1, 3), seconds=0.2, warm_up_seconds=0.05, workers=2)
    folder = make_artifact(tmp_path)
    add_serving_program(folder)
    predictor = Predictor.load(folder)
    served = Served(folder, "fp32", [Expected(*predictor.predict(data).ranked[0]) for data in images])
    turn = our_server(served, plan, tmp_path / "server.log")
    assert turn.loads.keys() == {1, 3}
    assert turn.start_seconds is not None and turn.memory is not None
    wrong = dataclasses.replace(served, expected=served.expected[::-1])
    with pytest.raises(WrongAnswerError, match="the reference says"):
        our_server(wrong, plan, tmp_path / "server.log")


def test_goals_compare_within_each_round() -> None:
    def turn(rates: dict[int, float], latency_ms: float = 10.0, *, pss: int = 0) -> Turn:
        loads = {clients: Load(1.0, round(rate), (latency_ms,) * round(rate), 0.0) for clients, rate in rates.items()}
        return Turn(loads, 1.0, Memory(pss, pss) if pss else None)

    results = {  # the second round was twice as slow for all of them
        "no server, int8": [turn({2: 100}), turn({2: 50}), turn({2: 100})],
        "our server, int8": [
            turn({1: 50, 8: 90}, 20, pss=2),
            turn({1: 25, 8: 45}, 40, pss=1),
            turn({1: 50, 8: 95}, 21),
        ],
        "LitServe, PyTorch": [turn({1: 9, 8: 30}, 100)] * 3,
    }
    found = {goal.name: goal.measured for goal in goals(results, Served(Path(), "int8", []))}
    assert found["our server / no server, 8 callers"] == 0.9
    assert found["our server / LitServe, PyTorch, 8 callers"] == 3.0
    assert found["our server / BentoML, PyTorch, 8 callers"] is None
    assert found["p50 with one caller"] == 21
