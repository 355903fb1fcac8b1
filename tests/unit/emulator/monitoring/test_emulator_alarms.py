"""The state of an alarm, as the tables of AWS's guide have it and as its sentences have it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.data(), st.integers(1, 6), st.sampled_from(TREATMENTS), st.text("0X-", max_size=12))
def test_no_other_state_than_by_counting_one_by_one(data: st.DataObject, n: int, missing: str, points: str) -> None:
    m = data.draw(st.integers(1, n))
    seen = points.rjust(n + 2, "-")[-(n + 2) :]
    real = seen.replace("-", "")[-n:]
    filled = real + {"breaching": "X", "notBreaching": "0"}.get(missing, "") * (n - len(real))
    if filled.count("X") >= m:
        expected = ALARM
    elif len(filled) == n or "0" in filled:
        expected = OK
    elif missing == "ignore":
        expected = KEPT
    elif not real:
        expected = INSUFFICIENT_DATA
    else:
        expected = ALARM if "X" in seen[: len(seen) - m + 1] else OK
    assert rule(n, m, missing).state([POINTS[sign] for sign in points], KEPT) == expected
