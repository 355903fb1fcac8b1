"""How CloudWatch finds the state of an alarm from the values of its metric."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OK, ALARM, INSUFFICIENT_DATA = "OK", "ALARM", "INSUFFICIENT_DATA"
#: An alarm looks at so many periods more than it needs, for some may have no data. AWS's guide says "a higher number of
#: data points than the number specified as Evaluation Periods" and shows 5 for 3.
_FURTHER_PERIODS = 2
COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


@dataclass(frozen=True)
class AlarmRule:
    """When an alarm is in which state.

    References
    ----------
    "Configuring how CloudWatch alarms treat missing data" in AWS's CloudWatch guide, with its two tables.
    """

    period: float  # seconds of AWS
    evaluation_periods: int  # N: the values that are looked at
    datapoints: int  # M: the values among them that have to breach the threshold
    threshold: float
    comparison: str
    missing: str = "missing"  # or "ignore", "breaching", "notBreaching"

    @classmethod
    def of(cls, alarm: Mapping[str, Any]) -> AlarmRule:
        """Read the rule of an alarm, as PutMetricAlarm takes it and DescribeAlarms gives it."""
        evaluation_periods = int(alarm["EvaluationPeriods"])
        return cls(
            float(alarm["Period"]),
            evaluation_periods,
            int(alarm.get("DatapointsToAlarm") or evaluation_periods),
            float(alarm["Threshold"]),
            alarm["ComparisonOperator"],
            alarm.get("TreatMissingData") or "missing",
        )

    @property
    def evaluation_range(self) -> int:
        """How many of the newest periods are looked at."""
        return self.evaluation_periods + _FURTHER_PERIODS

    def breaches(self, value: float) -> bool:
        return COMPARISONS[self.comparison](value, self.threshold)

    def state(self, points: Sequence[float | None], before: str) -> str:
        """Find the state from the values of the periods of the evaluation range.

        Parameters
        ----------
        points
            One for each period, newest last, None where there is no data.
        before
            The state so far.
        """
        points = points[-self.evaluation_range :]
        found = [self.breaches(point) for point in points if point is not None][-self.evaluation_periods :]
        filled = self.evaluation_periods - len(found)
        breaching = sum(found) + (filled if self.missing == "breaching" else 0)
        if breaching >= self.datapoints:
            return ALARM
        if not filled or self.missing in ("breaching", "notBreaching") or not all(found):
            return OK
        # All that is known breaches, but is less than it takes.
        if self.missing == "ignore":
            return before
        if not found:
            return INSUFFICIENT_DATA
        # The guide's "premature alarm state": nothing newer can refute what is old enough.
        oldest = next(age for age, point in zip(range(len(points), 0, -1), points, strict=True) if point is not None)
        return ALARM if oldest >= self.datapoints else OK
