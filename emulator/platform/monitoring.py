"""The metrics and alarms of the local AWS, as its services see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

#: (ARN of the action, region, the alarm as DescribeAlarms gives it, its state, the values of its periods)
AlarmAction = Callable[[str, str, dict[str, Any], str, Sequence[float]], None]


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
        digits: int = 3,
    ) -> None:
        """Publish a value, kept with so many digits, that was seen `count` times; cheap enough for every request."""

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
