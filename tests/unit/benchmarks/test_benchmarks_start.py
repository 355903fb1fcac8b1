"""The other benchmarks start, measure what they say, and write it down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_fixtures import draw

from benchmarks import input_pipeline, lambda_start, training


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
