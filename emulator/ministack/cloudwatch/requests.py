"""Requests to CloudWatch that are answered here, or refused before MiniStack would take them for something else."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from emulator.ministack.cloudwatch.alarms import WORDS
from emulator.ministack.cloudwatch.metrics import Metrics, known
from emulator.ministack.patching import around
from emulator.platform.awsapi import Payload
from emulator.platform.errors import ServiceError

#: As many as GetMetricStatistics returns.
_MOST_DATAPOINTS = 1_440
_SHORT_PERIODS = (1, 5, 10, 20, 30)
_ID = re.compile(r"[a-z][a-zA-Z0-9_]*")
_TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
#: What AWS's alarms have beside the values of one metric; MiniStack would forget it.
_NOT_HERE = ("Metrics", "ThresholdMetricId", "EvaluationCriteria", "EvaluationInterval", "ActionsSuppressor")


def install(metrics: Metrics) -> None:
    """Answer the requests for values, and refuse alarms that would never act."""
    from ministack.services import cloudwatch

    for name, answer in (("_get_metric_statistics", _statistics), ("_get_metric_data", _data)):
        setattr(cloudwatch, name, functools.partial(_answered, functools.partial(answer, metrics)))
    for name in ("_put_metric_alarm", "_put_composite_alarm"):
        around(cloudwatch, name, _put)
    around(cloudwatch, "cloudformation_put_metric_alarm", _put_from_template)


def _answered(
    answer: Callable[[Payload], Payload], params: Any, request: Payload, is_cbor: bool, is_json: bool = False
) -> Any:
    """Answer a request in JSON, as all of botocore's clients speak it."""
    from ministack.services import cloudwatch

    try:
        if not is_json:
            raise ServiceError("InvalidAction", "The local AWS takes this operation of CloudWatch in JSON only.")
        return cloudwatch._json_ok(answer(request))
    except ServiceError as error:
        return cloudwatch._error(error.code, error.message, error.status, use_json=is_json)


def _statistics(metrics: Metrics, request: Payload) -> Payload:
    code = "InvalidParameterValue"
    start, end = _range(request, code)
    period = _period(_required(request, "Period"), code)
    wanted = [*request.get("Statistics", []), *request.get("ExtendedStatistics", [])]
    if not wanted:
        message = "Must specify either Statistics or ExtendedStatistics."
        raise ServiceError("InvalidParameterCombination", message)
    if (count := int((end - start) / metrics.clock.seconds(period))) > _MOST_DATAPOINTS:
        message = f"You have requested up to {count:,} datapoints, which exceeds the limit of {_MOST_DATAPOINTS:,}."
        hint = "You may reduce the datapoints requested by increasing Period, or decreasing the time range."
        raise ServiceError("InvalidParameterCombination", f"{message} {hint}")
    unit = request.get("Unit")
    shown = unit or metrics.unit(*_metric(request))
    points: dict[float, Payload] = {}
    for statistic in wanted:
        found = metrics.values(*_metric(request), _statistic(statistic, code), period, start, end, unit)
        for at, value in found.items():
            point = points.setdefault(at, {"Timestamp": at, "Unit": shown})
            (point.setdefault("ExtendedStatistics", {}) if statistic[0] == "p" else point)[statistic] = value
    return {"Label": request["MetricName"], "Datapoints": [points[at] for at in sorted(points)]}


def _data(metrics: Metrics, request: Payload) -> Payload:
    code = "ValidationError"
    start, end = _range(request, code)
    queries = _required(request, "MetricDataQueries")
    ids = [query.get("Id", "") for query in queries]
    if wrong := [name for name in ids if not _ID.fullmatch(name)]:
        raise ServiceError(code, f"The value {wrong[0]} for parameter id does not match {_ID.pattern}.")
    if len(set(ids)) < len(ids):
        raise ServiceError(code, "The values for parameter id in MetricDataQueries are not unique.")
    results = []
    for query in queries:
        if "MetricStat" not in query:
            raise ServiceError(code, f"Query {query['Id']} has no MetricStat, and the local AWS does no metric math.")
        asked = query["MetricStat"]
        metric, statistic = _metric(asked["Metric"]), _statistic(asked["Stat"], code)
        found = metrics.values(*metric, statistic, _period(asked["Period"], code), start, end, asked.get("Unit"))
        points = sorted(found.items(), reverse=request.get("ScanBy") != "TimestampAscending")
        if query.get("ReturnData", True):
            about = {"Id": query["Id"], "Label": query.get("Label") or metric[2], "StatusCode": "Complete"}
            results.append({**about, "Timestamps": [at for at, _ in points], "Values": [v for _, v in points]})
    return {"MetricDataResults": results, "Messages": []}


def _metric(described: Payload) -> tuple[str, str, str, dict[str, str]]:
    """Region, namespace, name and dimensions: no dimensions are a set of their own."""
    from ministack.core.responses import get_region

    dimensions = {each["Name"]: each["Value"] for each in described.get("Dimensions") or []}
    return get_region(), _required(described, "Namespace"), _required(described, "MetricName"), dimensions


def _range(request: Payload, code: str) -> tuple[float, float]:
    from ministack.services import cloudwatch

    start, end = (cloudwatch._parse_ts(_required(request, name)) for name in ("StartTime", "EndTime"))
    if start >= end:
        raise ServiceError(code, "The parameter StartTime must be less than the parameter EndTime.")
    return start, end


def _required(request: Payload, name: str) -> Any:
    if request.get(name) in (None, "", []):
        raise ServiceError("MissingParameter", f"The parameter {name} is required.")
    return request[name]


def _period(period: float, code: str, shortest: float = 1) -> float:
    if period < shortest or (period not in _SHORT_PERIODS and period % 60):
        allowed = ", ".join(str(each) for each in _SHORT_PERIODS if each >= shortest)
        raise ServiceError(code, f"Period must be {allowed} or a multiple of 60, not {period}.")
    return period


def _statistic(statistic: str, code: str) -> str:
    if not known(statistic):
        has = "Sum, Average, Minimum, Maximum, SampleCount and percentiles such as p95"
        raise ServiceError(code, f"The local AWS does not know the statistic {statistic}. It has {has}.")
    return statistic


def _put(inner: Callable[..., Any], params: Any, request: Payload, is_cbor: bool, is_json: bool = False) -> Any:
    """Refuse what an alarm here cannot be, in any protocol."""
    from ministack.services import cloudwatch

    form = {name.partition(".")[0]: cloudwatch._p(params, name) for name in params}
    try:
        _check(request if is_cbor or is_json else form)
    except ServiceError as error:
        return cloudwatch._error(error.code, error.message, error.status, use_json=is_json, use_cbor=is_cbor)
    return inner(params, request, is_cbor, is_json)


def _put_from_template(inner: Callable[..., None], alarm: Payload) -> None:
    try:
        _check({name: value for name, value in alarm.items() if value is not None})
    except ServiceError as error:
        raise ValueError(error.message) from None
    inner(alarm)


def _check(alarm: Payload) -> None:
    code = "ValidationError"
    if foreign := [name for name in _NOT_HERE if alarm.get(name)]:
        message = f"The local AWS has no alarms with {foreign[0]}: an alarm is on one metric, or on other alarms."
        raise ServiceError(code, message)
    if "AlarmRule" in alarm:
        return
    given = {"TreatMissingData": "missing"} | alarm
    for name, allowed in (("ComparisonOperator", WORDS), ("TreatMissingData", _TREATMENTS)):
        value = _required(given, name)
        if value not in allowed:
            raise ServiceError(code, f"{name} must be one of {', '.join(allowed)}, not {value}.")
    _period(float(_required(alarm, "Period")), code, shortest=10)
    _statistic(alarm.get("ExtendedStatistic") or _required(alarm, "Statistic"), code)
    most, least = int(_required(alarm, "EvaluationPeriods")), int(alarm.get("DatapointsToAlarm") or 1)
    if not 1 <= least <= most:
        raise ServiceError(code, f"DatapointsToAlarm must be from 1 to EvaluationPeriods ({most}), not {least}.")
