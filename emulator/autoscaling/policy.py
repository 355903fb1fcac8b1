"""What a scaling policy decides, as AWS does: the alarms of target tracking, capacities, cooldowns. All of it is pure.

References
----------
Application Auto Scaling User Guide, "How target tracking scaling works" and "How step scaling works".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emulator.platform.alarms import AlarmRule

#: The alarms that AWS makes: above the target for 3 periods, below 90% of it for 15 minutes, whatever the period:
#: metrics of high resolution scale out sooner and in as slowly as the others (SageMaker, "Define a scaling policy").
_HIGH_PERIODS, _LOW_SECONDS, _LOW_SHARE = 3, 900, 0.9
_STANDARD_PERIOD, _HIGH_RESOLUTION_PERIOD = 60, 10
_DIGITS = 9  # below which a product of floats is noise, not a reason for one instance more


def tracking_alarms(configuration: dict[str, Any]) -> tuple[AlarmRule, ...]:
    """Give the rules of a target tracking policy's alarms: the high one and, unless scale-in is disabled, the low one.

    Parameters
    ----------
    configuration
        A TargetTrackingScalingPolicyConfiguration of AWS.
    """
    metric = configuration.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType", "")
    period = _HIGH_RESOLUTION_PERIOD if metric.endswith("HighResolution") else _STANDARD_PERIOD
    target, low = configuration["TargetValue"], _LOW_SECONDS // period
    alarms = (
        AlarmRule(period, _HIGH_PERIODS, _HIGH_PERIODS, target, "GreaterThanThreshold"),
        AlarmRule(period, low, low, round(target * _LOW_SHARE, _DIGITS), "LessThanThreshold"),
    )
    return alarms[:1] if configuration.get("DisableScaleIn") else alarms


def tracked_capacity(current: int, value: float, target: float) -> int:
    """Give the least capacity that brings a metric per unit of capacity from `value` to `target` or below."""
    capacity = math.ceil(round(current * value / target, _DIGITS))
    return max(capacity, current + 1) if value > target else min(capacity, current)


def step_capacity(current: int, configuration: dict[str, Any], breach: float) -> int:
    """Give the capacity of the step in which a breach lies; the current one when it lies in none.

    Parameters
    ----------
    configuration
        A StepScalingPolicyConfiguration of AWS.
    breach
        The metric minus the threshold of the alarm.
    """
    adjustment = next((s["ScalingAdjustment"] for s in configuration["StepAdjustments"] if _within(s, breach)), None)
    if adjustment is None:
        return current
    if configuration["AdjustmentType"] == "ExactCapacity":
        return int(adjustment)
    change = abs(adjustment)
    if configuration["AdjustmentType"] == "PercentChangeInCapacity":
        exact = current * change / 100  # AWS drops what is behind the comma, but makes at least 1 of it
        change = max(math.floor(exact), math.ceil(min(exact, 1)), configuration.get("MinAdjustmentMagnitude", 0))
    return max(0, current + int(math.copysign(change, adjustment)))


def _within(step: dict[str, Any], breach: float) -> bool:
    """Say whether a breach lies in a step: the bound that is nearer to the threshold belongs to it."""
    lower: float = step.get("MetricIntervalLowerBound", -math.inf)
    upper: float = step.get("MetricIntervalUpperBound", math.inf)
    if breach == 0:
        return lower <= 0 <= upper
    return lower <= breach < upper if breach > 0 else lower < breach <= upper


@dataclass
class ScalingState:
    """The bounds of a scalable target and the cooldown that is in effect; times in any one kind of seconds.

    A cooldown after a scale-out counts the capacity that was added as part of the next scale-out, so only a larger one
    goes through; one after a scale-in holds back every scale-in, and a scale-out ends it.
    """

    minimum: int
    maximum: int
    base: int = 0  # the capacity before what began the cooldown
    out: bool = False  # that was a scale-out
    until: float = -math.inf  # the end of the cooldown; inf while the capacity still changes

    def next_capacity(self, current: int, wanted: Callable[[int], int], now: float) -> int:
        """Give the capacity to have now; `wanted` says what the policy makes of a capacity."""
        cooling = now < self.until
        if wanted(current) > current:
            reference = min(current, self.base) if cooling and self.out else current
            return max(current, min(wanted(reference), self.maximum))
        return current if cooling and not self.out else min(current, max(wanted(current), self.minimum))

    def started(self, current: int, capacity: int, now: float) -> None:
        """Note that the capacity begins to change, by a policy."""
        out = capacity > current
        if not (out and self.out and now < self.until):
            self.base = current
        self.out, self.until = out, math.inf

    def ended(self, now: float, cooldown: float) -> None:
        """Note that the capacity has changed, which begins the cooldown; after a failure that is 0."""
        self.until = now + cooldown
