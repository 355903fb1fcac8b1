"""The state of an alarm, as the tables of AWS's guide have it."""

from __future__ import annotations

import pytest

from emulator.platform.alarms import ALARM, INSUFFICIENT_DATA, OK, AlarmRule

KEPT = "the state before"
TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
POINTS = {"0": 0.0, "X": 2.0, "-": None}


def rule(evaluation_periods: int, datapoints: int, missing: str) -> AlarmRule:
    return AlarmRule(60, evaluation_periods, datapoints, 1, "GreaterThanThreshold", missing)


@pytest.mark.parametrize(
    ("datapoints", "points", "states"),
    [
        (3, "0-X-X", (OK, OK, OK, OK)),
        (3, "0----", (OK, OK, OK, OK)),
        (3, "-----", (INSUFFICIENT_DATA, KEPT, ALARM, OK)),
        (3, "0XX-X", (ALARM, ALARM, ALARM, ALARM)),
        (3, "--X--", (ALARM, KEPT, ALARM, OK)),
        (3, "----X", (OK, KEPT, ALARM, OK)),
        (3, "---X-", (OK, KEPT, ALARM, OK)),
        (2, "0-X-X", (ALARM, ALARM, ALARM, ALARM)),
        (2, "00X0X", (ALARM, ALARM, ALARM, ALARM)),
        (2, "0-X--", (OK, OK, ALARM, OK)),
        (2, "----0", (OK, OK, ALARM, OK)),
        (2, "---X-", (ALARM, KEPT, ALARM, OK)),
    ],
)
def test_the_rows_of_the_guide(datapoints: int, points: str, states: tuple[str, ...]) -> None:
    values = [POINTS[sign] for sign in points]
    assert tuple(rule(3, datapoints, missing).state(values, KEPT) for missing in TREATMENTS) == states
