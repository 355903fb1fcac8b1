"""The metrics and alarms of the local AWS, as its services see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

#: (ARN of the action, region, the alarm as DescribeAlarms gives it, its state, the newest value of its metric)
AlarmAction = Callable[[str, str, dict[str, Any], str, float | None], None]


class Monitoring(Protocol):
    """CloudWatch. All methods may be called from any thread."""

    def record(
        self,
        region: str,
        namespace: str,
        name: str,
        dimensions: Mapping[str, str],
        value: float,
        unit: str = "None",
        count: float = 1.0,
    ) -> None:
        """Publish a value that was seen `count` times; cheap enough for every request."""

    def values(
        self,
        region: str,
        namespace: str,
        name: str,
        dimensions: Mapping[str, str],
        statistic: str,
        period: float,
        start: float,
        end: float,
    ) -> dict[float, float]:
        """Return a statistic of a metric by the start of each period that has data, oldest first.

        `statistic` is Sum, Average, Minimum, Maximum, SampleCount or a percentile such as p95, `period` is in seconds
        of AWS, and `start` and `end` are time stamps. Periods begin at `start`, rounded down to AWS's minute, or to
        ten seconds of AWS when they are shorter than a minute.
        """

    def put_alarm(self, region: str, alarm: dict[str, Any]) -> None:
        """Make or change an alarm; `alarm` is a request of PutMetricAlarm."""

    def delete_alarms(self, region: str, names: Sequence[str]) -> None:
        """Delete alarms; those that do not exist are no error."""

    def alarm_state(self, region: str, name: str) -> str | None:
        """Return the state of a metric alarm or composite alarm, None when there is no such alarm."""

    def on_alarm(self, prefix: str, act: AlarmAction) -> None:
        """Have `act` called for the actions of alarms whose ARN begins with `prefix`.

        It is called when an alarm changes to the state that the action is for, and then once in each minute of AWS
        (each period, when that is shorter) in which the alarm stays in that state.
        """
