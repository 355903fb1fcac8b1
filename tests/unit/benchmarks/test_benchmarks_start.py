"""The benchmarks start, measure what they say, and write it down."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import gpu, training


def test_a_training_that_is_skipped_is_not_measured_and_no_success(tmp_path: Path) -> None:
    everything = ["--skip", *training.PARTS, "--json", str(tmp_path / "figures.json")]
    assert training.main(everything) == 0
    assert training.main([*everything, "--check"]) == 1
    assert [goal["met"] for goal in json.loads((tmp_path / "figures.json").read_text())["goals"]] == [None] * 2


def test_time_in_which_several_kernels_run_counts_once() -> None:
    assert gpu.covered([(5, 6), (0, 2), (1, 3), (1, 2), (6, 7)]) == 5
