"""What the benchmarks share: rounds that take turns, statistics that a slow round does not bend, goals."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.measuring import Goal, add_common_options, finish, interleaved, paired_ratio, percentile


def test_every_round_measures_each_system_once_and_begins_with_another() -> None:
    order: list[str] = []

    def measure(name: str) -> int:
        order.append(name)
        return len(order)

    results = interleaved({name: lambda name=name: measure(name) for name in "abc"}, 4)  # type: ignore[misc]
    assert "".join(order) == "abcbcacababc"
    assert results["a"] == [1, 6, 8, 10]  # in the order of the rounds


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (5, 1), (5.1, 2), (50, 10), (95, 19), (95.1, 20), (100, 20)])
def test_percentile_is_the_nearest_rank(percent: float, expected: int) -> None:
    assert percentile(reversed(range(1, 21)), percent) == expected


def test_a_round_that_was_slow_for_both_does_not_change_the_ratio() -> None:
    assert paired_ratio([40, 4, 44], [10, 1, 11]) == 4
    assert paired_ratio([44, 40, 49], [10, 20, 7]) == 4.4
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_ratio([1, 2], [1])


@pytest.mark.parametrize(
    ("measured", "at_least", "met"),
    [(4.0, True, True), (3.9, True, False), (4.1, False, False), (None, False, None), (float("nan"), False, False)],
)
def test_goals_have_two_directions_and_may_be_unmeasured(measured: float | None, at_least: bool, met: object) -> None:
    assert Goal("fast", measured, 4.0, at_least=at_least).met is met


@pytest.mark.parametrize(
    ("measured", "check", "status"), [(1.0, True, 0), (3.0, False, 0), (3.0, True, 1), (None, True, 1)]
)
def test_a_missed_goal_fails_only_a_check(tmp_path: Path, measured: float | None, check: bool, status: int) -> None:
    parser = argparse.ArgumentParser()
    add_common_options(parser, rounds=3)
    file = tmp_path / "new" / "result.json"
    arguments = parser.parse_args(["--json", str(file), *(["--check"] if check else [])])
    assert finish(arguments, {}, [Goal("small", measured, 2.0, at_least=False)]) == status
    (goal,) = json.loads(file.read_text())["goals"]
    assert (goal["measured"], goal["limit"]) == (measured, 2.0)
