"""A CloudWatch of which tests see everything, and whose alarms change when a test says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Act = Callable[[str, str, dict[str, Any], str, Sequence[float]], None]


class Point(NamedTuple):
    region: str
    namespace: str
    name: str
    dimensions: dict[str, str]
    value: float
    unit: str
    count: float


class FakeMonitoring:
    """Stands for `emulator.platform.monitoring.Monitoring`."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.alarms: dict[tuple[str, str], dict[str, Any]] = {}
        self.states: dict[tuple[str, str], str] = {}
        self._acts: list[tuple[str, Act]] = []

    def record(
        self, region: str, namespace: str, name: str, dimensions: Mapping[str, str], value: float,
        unit: str = "None", count: float = 1.0, digits: int = 3,
    ) -> None:  # fmt: skip
        self.points.append(Point(region, namespace, name, dict(dimensions), value, unit, count))

    def put_alarm(self, region: str, alarm: dict[str, Any]) -> None:
        self.alarms[region, alarm["AlarmName"]] = alarm
        self.states.setdefault((region, alarm["AlarmName"]), "INSUFFICIENT_DATA")

    def delete_alarms(self, region: str, names: Sequence[str]) -> None:
        for name in names:
            self.alarms.pop((region, name), None)
            self.states.pop((region, name), None)

    def alarm_state(self, region: str, name: str) -> str | None:
        return self.states.get((region, name))

    def on_alarm(self, prefix: str, act: Act) -> None:
        self._acts.append((prefix, act))

    def fire(self, region: str, name: str, *values: float, state: str = "ALARM") -> None:
        """Bring an alarm into a state, or keep it there for one period more, and do what it is for."""
        alarm = self.alarms[region, name]
        self.states[region, name] = state
        actions = {"ALARM": "AlarmActions", "OK": "OKActions"}.get(state, "InsufficientDataActions")
        for arn in alarm.get(actions, []):
            for prefix, act in self._acts:
                if arn.startswith(prefix):
                    act(arn, region, alarm, state, values)
