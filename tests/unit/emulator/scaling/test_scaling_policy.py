"""What scaling policies decide, without anything that scales."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.autoscaling.policy import ScalingState, step_capacity, tracked_capacity, tracking_alarms
from emulator.platform.alarms import AlarmRule

CAPACITIES = st.integers(1, 50)
VALUES = st.floats(0, 1e5)
TARGETS = st.floats(0.1, 1e4)
COOLDOWN = 300.0


def tracking(value: float, target: float) -> Any:
    return lambda capacity: tracked_capacity(capacity, value, target)


def test_alarms_are_those_of_aws() -> None:
    for predefined, period, low in (("X", 60, 15), ("XHighResolution", 10, 90)):
        metric = {"PredefinedMetricSpecification": {"PredefinedMetricType": predefined}}
        assert tracking_alarms({"TargetValue": 600.0, **metric}) == (
            AlarmRule(period, 3, 3, 600.0, "GreaterThanThreshold"),
            AlarmRule(period, low, low, 540.0, "LessThanThreshold"),
        )


@given(CAPACITIES, VALUES, TARGETS)
def test_capacity_never_moves_against_the_metric(current: int, value: float, target: float) -> None:
    capacity = tracked_capacity(current, value, target)
    assert capacity > current if value > target else capacity <= current


@given(st.integers(1, 20), st.integers(0, 30), st.lists(st.tuples(VALUES, st.floats(0, 400)), max_size=20), TARGETS)
def test_bounds_hold_and_no_scale_in_comes_within_its_cooldown(
    minimum: int, room: int, steps: list[tuple[float, float]], target: float
) -> None:
    state = ScalingState(minimum, minimum + room)
    current, now, last_in = minimum, 0.0, -math.inf
    for value, pause in steps:
        now += pause
        capacity = state.next_capacity(current, tracking(value, target), now)
        assert minimum <= capacity <= minimum + room
        if capacity < current:
            assert now - last_in >= COOLDOWN
        if capacity != current:
            state.started(current, capacity, now)
            state.ended(now, COOLDOWN)
            last_in, current = now if capacity < current else -math.inf, capacity


@given(CAPACITIES, TARGETS, st.floats(1.01, 20), st.floats(1, 20), st.floats(0, 299))
def test_a_cooldown_lets_only_a_larger_scale_out_through(
    before: int, target: float, times: float, more: float, passed: float
) -> None:
    state = ScalingState(1, 10**6)
    first = state.next_capacity(before, tracking(target * times, target), 0.0)
    state.started(before, first, 0.0)
    state.ended(0.0, COOLDOWN)
    larger = tracked_capacity(before, target * times * more, target)
    assert state.next_capacity(first, tracking(target * times * more, target), passed) == larger >= first
    assert state.next_capacity(first, tracking(target * times, target), passed) == first


@given(st.floats(0, 1e5), TARGETS, CAPACITIES)
def test_a_steady_load_ends_at_the_least_capacity_or_within_a_tenth_below_the_target(
    load: float, target: float, start: int
) -> None:
    least = max(1, math.ceil(round(load / target, 9)))
    state, capacity = ScalingState(1, 10**7), start
    for hour in range(3):
        value = load / capacity
        if value > target or value < target * 0.9:
            capacity = state.next_capacity(capacity, tracking(value, target), hour * 3600.0)
    assert capacity == least or (capacity > least and load / capacity >= target * 0.9)


PERCENT = {"AdjustmentType": "PercentChangeInCapacity"}
CHANGE = {"AdjustmentType": "ChangeInCapacity"}
EXACT = {"AdjustmentType": "ExactCapacity"}


def step(adjustment: int, lower: float | None = None, upper: float | None = None) -> dict[str, float]:
    bounds = {"MetricIntervalLowerBound": lower, "MetricIntervalUpperBound": upper}
    return {"ScalingAdjustment": adjustment, **{name: bound for name, bound in bounds.items() if bound is not None}}


OUT = [step(1, 0, 10), step(3, 10)]
IN = [step(-1, -10, 0), step(-3, None, -10)]


@pytest.mark.parametrize(
    ("configuration", "steps", "current", "breach", "capacity"),
    [
        (CHANGE, OUT, 4, 0, 5), (CHANGE, OUT, 4, 9.9, 5), (CHANGE, OUT, 4, 10, 7), (CHANGE, OUT, 4, -1, 4),
        (CHANGE, IN, 4, 0, 3), (CHANGE, IN, 4, -9.9, 3), (CHANGE, IN, 4, -10, 1), (CHANGE, IN, 2, -10, 0),
        (EXACT, [step(6, 0)], 4, 5, 6), (EXACT, [step(0, None, 0)], 4, -5, 0),
        # Percents: AWS makes 0.7 to 1, 12.7 to 12, -0.7 to -1 and -6.67 to -6.
        (PERCENT, [step(7, 0)], 10, 1, 11), (PERCENT, [step(127, 0)], 10, 1, 22),
        (PERCENT, [step(-7, None, 0)], 10, -1, 9), (PERCENT, [step(-667, None, 0)], 1, -1, 0),
        (PERCENT, [step(-67, None, 0)], 10, -1, 4),
        ({**PERCENT, "MinAdjustmentMagnitude": 2}, [step(25, 0)], 4, 1, 6),
    ],
)  # fmt: skip
def test_steps(configuration: Any, steps: Any, current: int, breach: float, capacity: int) -> None:
    assert step_capacity(current, {**configuration, "StepAdjustments": steps}, breach) == capacity
