"""CloudWatch: its alarms are checked when AWS checks them, with its reasons, and set off what they are for."""

from __future__ import annotations

import functools
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from ministack.core.responses import get_region, request_scope
from ministack.services import cloudwatch

from emulator.ministack.cloudwatch import notifications
from emulator.ministack.cloudwatch.metrics import Metrics, step
from emulator.ministack.cloudwatch.requests import Requests
from emulator.ministack.patching import around
from emulator.platform.alarms import ALARM, INSUFFICIENT_DATA, OK, AlarmRule
from emulator.platform.awsapi import Caller, Payload
from emulator.platform.clock import Clock
from emulator.platform.monitoring import AlarmAction

logger = logging.getLogger(__name__)

_ACTIONS = {OK: "OKActions", ALARM: "AlarmActions", INSUFFICIENT_DATA: "InsufficientDataActions"}
#: As long as AWS keeps the history of alarms (CloudWatch's guide: 30 days).
_HISTORY_SECONDS = 30 * 24 * 3600.0
_NEVER: tuple[float, Sequence[float]] = (0.0, ())
#: How AWS says that a value is over a threshold.
_WORDS = {
    "GreaterThanOrEqualToThreshold": "greater than or equal to",
    "GreaterThanThreshold": "greater than",
    "LessThanThreshold": "less than",
    "LessThanOrEqualToThreshold": "less than or equal to",
}


class CloudWatch:
    """The platform's `Monitoring`; `note_change` is told when there is something to save."""

    def __init__(self, account: str, clock: Clock, note_change: Callable[[], None]) -> None:
        self._account, self._clock, self._note_change = account, clock, note_change
        self.metrics = Metrics(account, clock)
        self.requests = Requests(account, self.metrics)
        self.record = self.metrics.record
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cloudwatch", daemon=True)
        self._acts: list[tuple[str, AlarmAction]] = []
        self._called: deque[Callable[[], None]] = deque()
        #: By region and name: until when it was checked, and the values of its metric then.
        self._checked: dict[tuple[str, str], tuple[float, Sequence[float]]] = {}

    def install(self) -> None:
        """Take MiniStack's own checks away, which look at everything published under a metric's name."""
        self.metrics.install()
        self.requests.install()
        cloudwatch._evaluate_alarm = lambda alarm: None
        cloudwatch._evaluate_all_alarms = lambda: None
        around(cloudwatch, "_dispatch_alarm_actions", self._dispatch)

    def start(self) -> None:
        self.metrics.evict()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.metrics.flush()

    def _run(self) -> None:
        while not self._stopping.wait(self.metrics.resolution):
            try:
                self.check()
            except Exception:
                logger.exception("alarms could not be checked")

    def put_alarm(self, region: str, alarm: Payload) -> None:
        self.requests.call("PutMetricAlarm", alarm, Caller(self._account, region))

    def delete_alarms(self, region: str, names: Sequence[str]) -> None:
        self.requests.call("DeleteAlarms", {"AlarmNames": list(names)}, Caller(self._account, region))

    def alarm_state(self, region: str, name: str) -> str | None:
        place = (self._account, region, name)
        alarm = cloudwatch._alarms._data.get(place) or cloudwatch._composite_alarms._data.get(place)
        return alarm["StateValue"] if alarm else None

    def on_alarm(self, prefix: str, act: AlarmAction) -> None:
        self._acts.append((prefix, act))

    def check(self) -> None:
        """Keep what was recorded, check the alarms whose time it is, and carry out actions."""
        changed, now = self.metrics.flush(), time.time()
        for (account, region, name), alarm in list(cloudwatch._alarms._data.items()):
            every = self._clock.seconds(step(alarm["Period"]))
            end = now // every * every
            if end > self._checked.get((region, name), _NEVER)[0]:
                try:
                    with request_scope(account, region):
                        changed |= self._check(region, alarm, end)
                except Exception:  # the other alarms go on
                    logger.exception("alarm %s could not be checked", name)
        while self._called:
            try:
                self._called.popleft()()
            except Exception:
                logger.exception("an action of an alarm failed")
        if changed:
            self._note_change()

    def _check(self, region: str, alarm: Payload, end: float) -> bool:
        """Check one alarm at the end of a period; whether it changed."""
        rule = AlarmRule.of(alarm)
        length = self._clock.seconds(rule.period)
        start = end - rule.evaluation_range * length
        dimensions = {dimension["Name"]: dimension["Value"] for dimension in alarm["Dimensions"]}
        metric = (region, alarm["Namespace"], alarm["MetricName"], dimensions)
        statistic = alarm.get("ExtendedStatistic") or alarm["Statistic"]
        found = self.metrics.values(metric, statistic, rule.period, start, end, alarm.get("Unit"))
        points: list[float | None] = [None] * rule.evaluation_range
        for at, value in found.items():
            points[round((at - start) / length)] = value
        recent = list(found.items())[-rule.evaluation_periods :]
        self._checked[region, alarm["AlarmName"]] = end, [value for _, value in recent]
        before = alarm["StateValue"]
        state = rule.state(points, before)
        if state == before:
            self._call(region, alarm, state)
            return False
        reason = _reason(rule, recent, before, state)
        cloudwatch._set_alarm_state(
            {}, {"AlarmName": alarm["AlarmName"], "StateValue": state, "StateReason": reason}, False, True
        )
        return True

    def _dispatch(self, inner: Callable[..., None], alarm: Payload, before: str, state: str, reason: str) -> None:
        """Carry out the actions of a changed alarm: MiniStack tells topics, we call the functions of `on_alarm`."""
        topics = [arn for arn in _actions(alarm, state) if arn.startswith("arn:aws:sns:")]
        refusals = {arn: notifications.refusal(arn, alarm["AlarmArn"]) for arn in topics}
        told = [arn for arn, refused in refusals.items() if refused is None]
        inner({**alarm, _ACTIONS[state]: told}, before, state, reason)
        for arn, refused in refusals.items():
            _note_action(alarm, arn, refused)
        history, oldest = cloudwatch._history_entries(), cloudwatch._ts_iso(time.time() - _HISTORY_SECONDS)
        history[:] = [item for item in history if item["Timestamp"] >= oldest]
        self._call(get_region(), alarm, state)

    def _call(self, region: str, alarm: Payload, state: str) -> None:
        """Have the functions called that are for an alarm's actions in a state, soon and outside of any request."""
        _, values = self._checked.get((region, alarm["AlarmName"]), _NEVER)
        for arn in _actions(alarm, state):
            for prefix, act in self._acts:
                if arn.startswith(prefix):
                    self._called.append(functools.partial(act, arn, region, dict(alarm), state, values))


def _actions(alarm: Payload, state: str) -> list[str]:
    return list(alarm.get(_ACTIONS[state]) or []) if alarm.get("ActionsEnabled", True) else []


def _note_action(alarm: Payload, arn: str, refused: str | None) -> None:
    done = f"Successfully executed action {arn}"
    if refused:
        done = f'Failed to execute action {arn}. Received error: "{refused}"'
    data = {"actionState": "Failed" if refused else "Succeeded", "notificationResource": arn, "error": refused}
    kind = "CompositeAlarm" if "AlarmRule" in alarm else "MetricAlarm"
    item = {"AlarmName": alarm["AlarmName"], "AlarmType": kind, "Timestamp": cloudwatch._ts_iso(time.time())}
    about = {"HistoryItemType": "Action", "HistorySummary": done, "HistoryData": json.dumps(data)}
    cloudwatch._history_entries().append(item | about)


def _reason(rule: AlarmRule, recent: Sequence[tuple[float, float]], before: str, state: str) -> str:
    """Say as AWS does why an alarm is in a state."""
    missing = rule.evaluation_periods - len(recent)
    s, was = ("", "was") if missing == 1 else ("s", "were")
    if state == INSUFFICIENT_DATA:
        return f"Insufficient Data: {missing} datapoint{s} {was} unknown."
    if not recent:
        treated = (
            f"{missing} missing datapoint{s} {was} treated as [{'Breaching' if state == ALARM else 'NonBreaching'}]"
        )
        return f"Threshold Crossed: no datapoints were received for {missing} period{s} and {treated}."
    deciding = [(at, value) for at, value in reversed(recent) if rule.breaches(value) == (state == ALARM)]
    listed = ", ".join(f"{value} ({datetime.fromtimestamp(at, UTC):%d/%m/%y %H:%M:%S})" for at, value in deciding)
    was = ("was" if len(deciding) == 1 else "were") + ("" if state == ALARM else " not")
    needed = rule.datapoints if state == ALARM else rule.evaluation_periods - rule.datapoints + 1
    minimum = f" (minimum {needed} datapoint{'s' if needed > 1 else ''} for {before} -> {state} transition)"
    return (
        f"Threshold Crossed: {len(deciding)} out of the last {rule.evaluation_periods} datapoints [{listed}] {was} "
        f"{_WORDS[rule.comparison]} the threshold ({rule.threshold}){'' if before == INSUFFICIENT_DATA else minimum}."
    )
