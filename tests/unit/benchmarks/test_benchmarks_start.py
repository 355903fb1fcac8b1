"""The benchmarks start, measure what they say, and write it down."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from serving_fixtures import image_bytes, make_artifact
from training_fixtures import draw

from benchmarks import input_pipeline, lambda_start, training
from benchmarks.load import Expected, WrongAnswerError
from benchmarks.measuring import interleaved, paired_ratio
from benchmarks.serving_systems import Plan, Served, our_server
from model.core.packaging import add_serving_program
from model.core.predictor import Predictor


def test_rounds_take_turns_and_one_that_was_slow_for_both_does_not_change_the_ratio() -> None:
    order: list[str] = []
    interleaved({name: lambda name=name: order.append(name) for name in "abc"}, 4)  # type: ignore[misc]
    assert "".join(order) == "abcbcacababc"
    assert paired_ratio([40, 4, 44], [10, 1, 11]) == 4


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


def test_the_input_pipeline(tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for seed in range(3):
        (photographs / f"{seed}.jpg").write_bytes(draw(0, seed, format="JPEG"))
    result = tmp_path / "result.json"
    options = ["--pictures", str(photographs), "--count", "8", "--epochs", "2", "--rounds", "1", "--json", str(result)]
    assert input_pipeline.main(options) == 0
    assert list(json.loads(result.read_text())["rates"]) == ["usual", "ours", "usual, 256 px copy", "ours, 256 px copy"]


@pytest.mark.parametrize("module", [lambda_start.OURS, lambda_start.BOTO3])
def test_the_start_of_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setattr(lambda_start, "SIZES", (1_000, 200_000))
    asset = lambda_start.lay_out_asset(tmp_path)
    with lambda_start.endpoint() as address:
        start = lambda_start.call_handler(asset, module, calls=2, address=address)
    assert start.init_ms > 1
    assert start.own_ms.keys() == {1_000, 200_000}


def test_a_training_that_is_skipped_is_not_measured_and_no_success(tmp_path: Path) -> None:
    everything = ["--skip", *training.PARTS, "--json", str(tmp_path / "figures.json")]
    assert training.main(everything) == 0
    assert training.main([*everything, "--check"]) == 1
    assert [goal["met"] for goal in json.loads((tmp_path / "figures.json").read_text())["goals"]] == [None] * 3
