"""The state of an alarm, as the tables of AWS's guide have it."""

from __future__ import annotations

import pytest
from examples import examples

from emulator.platform.alarms import AlarmRule

KEPT = "the state before"
TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
POINTS = {"0": 0.0, "X": 2.0, "-": None}


def rule(evaluation_periods: int, datapoints: int, missing: str) -> AlarmRule:
    return AlarmRule(60, evaluation_periods, datapoints, 1, "GreaterThanThreshold", missing)


@pytest.mark.parametrize(("datapoints", "points", "states"), examples(__file__, "guide"))
def test_the_rows_of_the_guide(datapoints: int, points: str, states: list[str]) -> None:
    values = [POINTS[sign] for sign in points]
    assert [rule(3, datapoints, missing).state(values, KEPT) for missing in TREATMENTS] == states
