"""The benchmarks start, measure what they say, and write it down."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import training


def test_a_training_that_is_skipped_is_not_measured_and_no_success(tmp_path: Path) -> None:
    everything = ["--skip", *training.PARTS, "--json", str(tmp_path / "figures.json")]
    assert training.main(everything) == 0
    assert training.main([*everything, "--check"]) == 1
    assert [goal["met"] for goal in json.loads((tmp_path / "figures.json").read_text())["goals"]] == [None] * 3
