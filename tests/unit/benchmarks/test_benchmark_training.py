"""The benchmark of training: what it reports of what it did and did not measure."""

from __future__ import annotations

import json

import pytest

from benchmarks import training


def test_what_is_skipped_is_not_measured_and_no_success(tmp_path, capsys):
    everything = ["--skip", *training.PARTS, "--json", str(tmp_path / "figures.json")]
    assert training.main(everything) == 0
    assert training.main([*everything, "--check"]) == 1
    goals = json.loads((tmp_path / "figures.json").read_text())["goals"]
    assert [goal["met"] for goal in goals] == [None] * 3
    assert "not measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("half", "ratio"),
    [({}, 2.0), ({"mixed precision, compiled": [20.0, 15.0, 24.0]}, 3.0)],
    ids=["float32", "mixed precision"],
)
def test_the_ratios_are_those_of_the_rounds(tmp_path, monkeypatch, capsys, half, ratio):
    step = {"plain": [5.0, 10.0, 8.0], "float32, compiled": [10.0, 30.0, 16.0], "compile_seconds": 70.0, **half}
    step[training.CONVOLUTIONS] = [6.0, 11.0, 10.0]
    rates = {"usual": [{"training": 100.0}], "ours": [{"training": 250.0}]}
    monkeypatch.setattr(training, "measure_step", lambda rounds, steps, cached: step)
    monkeypatch.setattr(training, "measure_input", lambda quick: {"ratios": {"ours": 2.5}, "rates": rates})
    processes = {"one": [10.0], "two": [17.0], "apart": [18.0]}
    monkeypatch.setattr(training, "measure_processes", lambda rounds, epochs: processes)
    assert training.main(["--json", str(tmp_path / "figures.json"), "--check"]) == 1
    goals = json.loads((tmp_path / "figures.json").read_text())["goals"]
    assert [(goal["measured"], goal["met"]) for goal in goals] == [(ratio, True), (2.5, True), (0.85, False)]
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "convolutions alone, in float32, over the plain step: 1.20x" in printed
    assert "apart reach 0.90 of twice one: this machine's limit, of which two together reach 0.94" in printed


def test_a_measured_training_that_ends_early_is_an_error_and_no_result():
    turns = training.Turns("neither plain nor ours", 1, {})
    try:
        with pytest.raises(RuntimeError, match="ended with status 1"):
            turns.turn()
    finally:
        turns.end()
