"""CloudWatch without a server: what is recorded is what is read, and alarms follow their metric."""

from __future__ import annotations

import asyncio
import json
import statistics
import time as clock
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from examples import refusals
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ministack import app
from ministack.services import cloudwatch as store

from emulator.ministack.cloudwatch.alarms import CloudWatch
from emulator.platform.alarms import ALARM, INSUFFICIENT_DATA, AlarmRule
from emulator.platform.awsapi import Caller
from emulator.platform.clock import Clock
from emulator.platform.errors import ServiceError

CALLER = Caller("000000000000", "us-east-1")
START = 1_800_000_000.0
REGIONS = ("us-east-1", "eu-west-1")
DIMENSIONS: tuple[dict[str, str], ...] = ({}, {"a": "1"}, {"a": "1", "b": "2"})
AFTER = st.integers(0, 2990).map(lambda tenths: tenths / 10)
RECORDS = st.lists(st.tuples(AFTER, st.sampled_from(REGIONS), st.sampled_from(DIMENSIONS), st.integers(1, 999)))
METRIC = {"Namespace": "N", "MetricName": "m", "Period": 60, "Statistic": "Sum"}
RULE = {"Threshold": 5, "ComparisonOperator": "GreaterThanThreshold", "EvaluationPeriods": 2}
QUERY = {"Id": "a", "MetricStat": {"Metric": {"Namespace": "N", "MetricName": "m"}, "Period": 60, "Stat": "Sum"}}
OLDEST = START - 14 * 86400
RANGE = {"StartTime": START, "EndTime": START + 120}
many = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Time:
    now = START

    def time(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    """Give the time that CloudWatch sees; what it replaces in MiniStack is put back."""
    replaced, handler, time = dict(vars(store)), app.SERVICE_HANDLERS["monitoring"], Time()
    for module in ("alarms", "metrics", "metric_data"):
        monkeypatch.setattr(f"emulator.ministack.cloudwatch.{module}.time", time)
    yield time
    vars(store).update(replaced)
    app.SERVICE_HANDLERS["monitoring"] = handler


def installed(speed: float = 1.0) -> CloudWatch:
    store.reset()
    cloudwatch = CloudWatch("000000000000", Clock(speed), lambda: None)
    cloudwatch.install()
    return cloudwatch


@given(RECORDS, st.sampled_from([1.0, 7.0, 10.0, 60.0]), st.sampled_from([10.0, 60.0, 120.0]))
@many
def test_a_metric_has_what_was_recorded_for_it(time: Time, records: list[Any], speed: float, period: float) -> None:
    cloudwatch, real = installed(speed), Clock(speed).seconds
    expected: dict[Any, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for after, region, dimensions, value in records:
        time.now = START + real(after)
        cloudwatch.record(region, "N", "m", dimensions, value)
        expected[region, str(dimensions)][int(after // period)].append(value)
    for place in [(region, dimensions) for region in REGIONS for dimensions in DIMENSIONS]:
        wanted = expected[place[0], str(place[1])]
        for name, of in (("Sum", sum), ("SampleCount", len), ("Minimum", min), ("p50", statistics.median)):
            found = cloudwatch.metrics.values((place[0], "N", "m", place[1]), name, period, START, START + real(300))
            numbered = {round((at - START) / real(period)): value for at, value in found.items()}
            assert numbered == pytest.approx({number: of(some) for number, some in wanted.items()})


@given(st.lists(st.sampled_from([None, 1.0, 9.0]), max_size=12), st.sampled_from([1.0, 10.0]))
@many
def test_an_alarm_follows_its_metric_and_acts_once_a_minute(
    time: Time, points: list[float | None], speed: float
) -> None:
    cloudwatch, minute = installed(speed), Clock(speed).seconds(60)
    called: list[str] = []
    cloudwatch.on_alarm("arn:act", lambda arn, region, alarm, state, value: called.append(state))
    cloudwatch.put_alarm("us-east-1", {"AlarmName": "a", **METRIC, **RULE, "AlarmActions": ["arn:act", "arn:other"]})
    rule, state, states = AlarmRule.of({**METRIC, **RULE}), INSUFFICIENT_DATA, []
    for number, point in enumerate(points):
        time.now = START + minute * (number + 0.5)
        if point is not None:
            cloudwatch.record("us-east-1", "N", "m", {}, point)
        for later in (0.01, 0.2):  # it is looked at more often than it is checked
            time.now = START + minute * (number + 1 + later)
            cloudwatch.check()
        state = rule.state(points[: number + 1], state)
        states.append(state)
        assert cloudwatch.alarm_state("us-east-1", "a") == state
    assert called == [state for state in states if state == ALARM]
    assert cloudwatch.alarm_state("eu-west-1", "a") is None


def test_the_history_of_alarms_is_kept_for_a_month(time: Time) -> None:
    cloudwatch = installed()
    cloudwatch.put_alarm("us-east-1", {"AlarmName": "a", **METRIC, **RULE, "TreatMissingData": "breaching"})
    for days, kept in ((29, True), (31, False)):
        time.now = clock.time() + days * 86400  # MiniStack writes the real time
        for state in ("OK", "ALARM"):
            request = {"AlarmName": "a", "StateValue": state, "StateReason": "test"}
            cloudwatch.requests.call("SetAlarmState", request, CALLER)
        told = cloudwatch.requests.call("DescribeAlarmHistory", {"HistoryItemType": "StateUpdate"}, CALLER)
        assert bool(told["AlarmHistoryItems"]) is kept


def test_the_reason_is_in_the_words_of_aws(time: Time) -> None:
    cloudwatch = installed()
    cloudwatch.put_alarm("us-east-1", {"AlarmName": "a", **METRIC, **RULE, "DatapointsToAlarm": 1})
    reasons = []
    for number, value in enumerate([3, 9, None, None, None, None]):
        time.now = START + 60 * number
        if value:
            cloudwatch.record("us-east-1", "N", "m", {}, value)
        time.now += 60
        cloudwatch.check()
        reasons.append(store._alarms._data["000000000000", "us-east-1", "a"]["StateReason"])
    assert reasons == [
        "Threshold Crossed: 1 out of the last 2 datapoints [3.0 (15/01/27 08:00:00)] was not greater than the "
        "threshold (5.0).",
        *["Threshold Crossed: 1 out of the last 2 datapoints [9.0 (15/01/27 08:01:00)] was greater than the "
          "threshold (5.0) (minimum 1 datapoint for OK -> ALARM transition)."] * 4,
        "Insufficient Data: 2 datapoints were unknown.",
    ]  # fmt: skip


REQUESTS = {
    "PutMetricAlarm": {"AlarmName": "a", **METRIC, **RULE},
    "GetMetricData": {**RANGE, "MetricDataQueries": [QUERY]},
    "GetMetricStatistics": {**RANGE, **METRIC},
    "PutDashboard": {"DashboardName": "d", "DashboardBody": '{"widgets": []}'},
    "PutMetricData": {"Namespace": "n", "MetricData": [{"MetricName": "m", "Value": 1}]},
}


@pytest.mark.parametrize(("operation", "request_", "message", "code"), refusals(__file__, REQUESTS))
def test_what_cannot_be_done_is_refused(
    time: Time, operation: str, request_: dict[str, Any], message: str, code: str
) -> None:
    with pytest.raises(ServiceError) as refused:
        installed().requests.call(operation, request_, CALLER)
    assert (refused.value.code, message in refused.value.message) == (code or "ValidationError", True)
    assert store._alarms._data == store._metrics._data == store._dashboards._data == {}


@pytest.mark.parametrize(("metrics", "values", "dimensions"), [(1000, 1, 0), (1, 150, 0), (1, 1, 30)])
def test_so_much_data_is_taken_and_no_more(time: Time, metrics: int, values: int, dimensions: int) -> None:
    def put(namespace: str, more: int) -> None:
        named = [{"Name": f"{number}", "Value": "v"} for number in range(dimensions and dimensions + more)]
        datum = {"MetricName": "m", "Values": [1.0] * (values + more), "Dimensions": named, "Timestamp": OLDEST}
        call("PutMetricData", {"Namespace": namespace, "MetricData": [datum] * (metrics + more)}, CALLER)

    call = installed().requests.call
    put("N", 0)
    with pytest.raises(ServiceError, match=r"less than or equal to (1000|150|30)"):
        put("O", 1)
    assert {key[2][0] for key in store._metrics._data} == {"N"}


def test_a_dashboard_is_checked_in_stacks_too(time: Time) -> None:
    body = json.dumps({"widgets": []})
    installed().requests.call("PutDashboard", {"DashboardName": "d", "DashboardBody": body}, CALLER)
    with pytest.raises(ValueError, match="no array of widgets"):
        store.cloudformation_put_dashboard("e", '{"widgets": 1}')
    assert [body] == [each["DashboardBody"] for each in store._dashboards._data.values()]


def test_values_are_newest_first_unless_asked_otherwise(time: Time) -> None:
    cloudwatch = installed()
    for minute in (0, 1):
        time.now = START + 60 * minute
        cloudwatch.record("us-east-1", "N", "m", {}, minute + 1)
    for scan, expected in (({}, [2.0, 1.0]), ({"ScanBy": "TimestampAscending"}, [1.0, 2.0])):
        request = {**RANGE, **scan, "MetricDataQueries": [QUERY]}
        answer = cloudwatch.requests.call("GetMetricData", request, CALLER)
        assert answer["MetricDataResults"][0]["Values"] == expected


PROTOCOL, FORM = "GraniteServiceVersion20100801", {"content-type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        (f"/service/{PROTOCOL}/operation/PutMetricData", {"smithy-protocol": "rpc-v2-cbor"}, b"", 400),
        ("/", FORM, b"Action=PutMetricAlarm&AlarmName=a", 400),
        ("/", FORM, b"Action=DescribeAlarms", 200),
        ("/", {"x-amz-target": f"{PROTOCOL}.DescribeAlarms"}, b"{}", 200),
    ],
)
def test_a_request_is_answered_or_refused_whatever_form_it_has(
    time: Time, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    installed()
    answer = asyncio.run(app.SERVICE_HANDLERS["monitoring"]("POST", path, headers, body, {}))
    assert answer[0] == status
    assert (status == 200) != (b"in JSON only" in answer[2])
