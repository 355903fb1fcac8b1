"""The input pipeline's benchmark measures what it says, on pictures that it draws or is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_fixtures import draw

from benchmarks import input_pipeline


def test_it_measures_all_four_and_says_whether_the_goal_is_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for seed in range(3):
        (photographs / f"{seed}.jpg").write_bytes(draw(0, seed, format="JPEG"))
    result = tmp_path / "result.json"
    options = ["--pictures", str(photographs), "--count", "8", "--epochs", "2", "--rounds", "1", "--json", str(result)]
    assert input_pipeline.main(options) == 0
    document = json.loads(result.read_text())
    assert list(document["rates"]) == ["usual", "ours", "usual, 256 px copy", "ours, 256 px copy"]
    [ours] = document["rates"]["ours"]
    # Two epochs and the decoding before them take as long as the three parts together.
    assert 2 / ours["training"] == pytest.approx(1 / ours["first"] + 2 / ours["epoch"])
    assert document["ratios"]["usual"] == 1
    [goal] = document["goals"]
    assert goal["measured"] == document["ratios"]["ours"]
    assert "ours / usual" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--count", "6"], ["--count", "0"], ["--epochs", "0"], ["--rounds", "0"]])
def test_numbers_that_measure_nothing_are_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        input_pipeline.main(options)
    assert refused.value.code == 2


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="There are no pictures in"):
        input_pipeline.main(["--pictures", str(tmp_path)])
