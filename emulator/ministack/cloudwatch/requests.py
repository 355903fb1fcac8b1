"""Requests to CloudWatch: checked against botocore's model, then answered here or by MiniStack."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from botocore import xform_name
from ministack import app
from ministack.core.responses import request_scope
from ministack.services import cloudwatch

from emulator.ministack.cloudwatch import metric_data
from emulator.ministack.cloudwatch.metrics import Metrics, known
from emulator.ministack.door import operations
from emulator.ministack.patching import around, around_service
from emulator.platform.alarms import COMPARISONS
from emulator.platform.awsapi import Caller, Payload, Response, Service, operation
from emulator.platform.errors import ServiceError, refuse

#: As many as GetMetricStatistics returns.
_MOST_DATAPOINTS = 1_440
_SHORT_PERIODS = (1, 5, 10, 20, 30)
_ID = re.compile(r"[a-z][a-zA-Z0-9_]*")
_TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
_REQUIRED = ("MetricName", "Namespace", "Period", "Threshold")
_COMBINATION = "InvalidParameterCombination"
_DAY = 24 * 3600
Handler = Callable[..., Awaitable[Response]]


class Requests(Service):
    """The operations of CloudWatch; those that are not here are MiniStack's."""

    name = "cloudwatch"

    def __init__(self, account: str, metrics: Metrics) -> None:
        super().__init__(account)
        self._metrics = metrics
        self.register(self)

    def install(self) -> None:
        """Take the place of MiniStack's handler, and refuse a template's alarms that would never act."""
        around_service("monitoring", functools.partial(self._route, {*self._handlers, "PutCompositeAlarm"}))
        for name in self.model.operation_names:
            if inner := getattr(cloudwatch, f"_{xform_name(name)}", None):
                self._handlers.setdefault(name, functools.partial(_ask, inner))
        for kind, check in (("metric_alarm", _check_template_alarm), ("dashboard", _check_dashboard)):
            around(cloudwatch, f"cloudformation_put_{kind}", functools.partial(_put_from_template, check))

    async def _route(
        self, ours: set[str], inner: Handler, method: str, path: str, headers: Any, body: bytes, query: Any
    ) -> Response:
        """Answer JSON here, and have MiniStack answer older clients' form; it cannot read CBOR."""
        if headers.get("x-amz-target") and path == "/":
            return await self.handle(method, path, headers, body, query)
        parameters = app._routing_params(method, path, headers, body, query)
        name = operations.action("monitoring", method, path, headers, parameters).partition(":")[2]
        if name in ours or "cbor" in headers.get("smithy-protocol", headers.get("content-type", "")):
            message = f"The local AWS takes {name} of CloudWatch in JSON only, as boto3 1.42 and later send it."
            return cloudwatch._error("InvalidAction", message, 400)  # type: ignore[no-any-return]
        return await inner(method, path, headers, body, query)

    def call(self, operation: str, payload: Payload, caller: Caller, *, by_aws: bool = False) -> Payload:
        """Answer a request; CloudWatch has a name of its own for a wrong one."""
        try:
            return super().call(operation, payload, caller, by_aws=by_aws)
        except ServiceError as error:
            wrong = "InvalidParameterValue" if operation == "PutMetricData" else "ValidationError"
            code = error.code.replace("ValidationException", wrong)
            raise ServiceError(code, error.message, error.status) from None

    @operation("PutMetricAlarm")
    def put_metric_alarm(self, request: Payload, caller: Caller) -> Payload:
        _check_alarm(request)
        return _ask(cloudwatch._put_metric_alarm, request, caller)

    @operation("PutMetricData")
    def put_metric_data(self, request: Payload, caller: Caller) -> Payload:
        metric_data.check(request, self._metrics.clock)
        return _ask(cloudwatch._put_metric_data, request, caller)

    @operation("PutDashboard")
    def put_dashboard(self, request: Payload, caller: Caller) -> Payload:
        _check_dashboard(request["DashboardBody"])
        return _ask(cloudwatch._put_dashboard, request, caller)

    @operation("GetMetricStatistics")
    def get_metric_statistics(self, request: Payload, caller: Caller) -> Payload:
        wanted = [*request.get("Statistics", []), *request.get("ExtendedStatistics", [])]
        if not wanted:
            raise ServiceError(_COMBINATION, "Must specify either Statistics or ExtendedStatistics.")
        count = int((request["EndTime"] - request["StartTime"]) / self._metrics.clock.seconds(request["Period"]))
        if count > _MOST_DATAPOINTS:
            said = f"You have requested up to {count:,} datapoints, which exceeds the limit of {_MOST_DATAPOINTS:,}."
            hint = "You may reduce the datapoints requested by increasing Period, or decreasing the time range."
            raise ServiceError(_COMBINATION, f"{said} {hint}")
        points: dict[float, Payload] = {}
        for statistic in wanted:
            for at, value in self._values(request, request, statistic, caller).items():
                point = points.setdefault(at, {"Timestamp": at})
                (point.setdefault("ExtendedStatistics", {}) if statistic[0] == "p" else point)[statistic] = value
        return {"Label": request["MetricName"], "Datapoints": [points[at] for at in sorted(points)]}

    @operation("GetMetricData")
    def get_metric_data(self, request: Payload, caller: Caller) -> Payload:
        queries = request["MetricDataQueries"]
        ids = [query["Id"] for query in queries]
        wrong = [name for name in ids if not _ID.fullmatch(name) or ids.count(name) > 1]
        refuse(wrong, f"The values {wrong} for parameter id are not unique, or do not match {_ID.pattern}.")
        results = []
        for query in queries:
            refuse("MetricStat" not in query, f"Query {query['Id']} needs a MetricStat.")
            asked = query["MetricStat"]
            found = self._values(request, {**asked, **asked["Metric"]}, asked["Stat"], caller)
            points = sorted(found.items(), reverse=request.get("ScanBy") != "TimestampAscending")
            if query.get("ReturnData", True):
                label = query.get("Label") or asked["Metric"]["MetricName"]
                about = {"Id": query["Id"], "Label": label, "StatusCode": "Complete"}
                results.append({**about, "Timestamps": [at for at, _ in points], "Values": [v for _, v in points]})
        return {"MetricDataResults": results, "Messages": []}

    def _values(self, request: Payload, asked: Payload, statistic: str, caller: Caller) -> dict[float, float]:
        start, end = request["StartTime"], request["EndTime"]
        refuse(start >= end, "The parameter StartTime must be less than the parameter EndTime.")
        _check_period(asked["Period"], statistic)
        dimensions = {each["Name"]: each["Value"] for each in asked.get("Dimensions") or []}
        metric = caller.region, asked["Namespace"], asked["MetricName"], dimensions
        return self._metrics.values(metric, statistic, asked["Period"], start, end, asked.get("Unit"))


def _ask(inner: Callable[..., Any], request: Payload, caller: Caller) -> Payload:
    with request_scope(caller.account, caller.region):
        status, _, body = inner({}, request, False, True)
    answer: Payload = json.loads(body)
    if status != 200:
        raise ServiceError(answer["__type"], answer["message"], status)
    return answer


def _put_from_template(check: Callable[[Any], object], inner: Callable[..., Any], *given: Any) -> Any:
    try:
        check(given[-1])
    except ServiceError as error:
        raise ValueError(error.message) from None
    return inner(*given)


def _check_dashboard(text: str) -> None:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ServiceError("InvalidParameterInput", "The field DashboardBody must be a valid JSON object")
    if not isinstance(body.get("widgets"), list):
        raise ServiceError("InvalidParameterInput", "The dashboard body is invalid: it has no array of widgets")


def _check_template_alarm(alarm: Payload) -> None:
    _check_alarm({name: value for name, value in alarm.items() if value is not None})


def _check_alarm(alarm: Payload) -> None:
    missing = [name for name in _REQUIRED if name not in alarm]
    refuse(missing, f"An alarm on a metric needs {', '.join(missing)}.")
    for name, allowed in (("ComparisonOperator", COMPARISONS), ("TreatMissingData", _TREATMENTS)):
        value = alarm.get(name, "missing")
        refuse(value not in allowed, f"{name} must be one of {', '.join(allowed)}, not {value}.")
    _check_period(alarm["Period"], alarm.get("ExtendedStatistic") or alarm.get("Statistic", ""), shortest=10)
    most, least = alarm["EvaluationPeriods"], alarm.get("DatapointsToAlarm", 1)
    refuse(not 1 <= least <= most, f"DatapointsToAlarm must be from 1 to EvaluationPeriods ({most}), not {least}.")
    longest = 7 * _DAY if alarm["Period"] >= 3600 else _DAY
    refuse(most * alarm["Period"] > longest, f"EvaluationPeriods * Period must be <= {longest} seconds.")


def _check_period(period: float, statistic: str, shortest: float = 1) -> None:
    allowed = [each for each in _SHORT_PERIODS if each >= shortest]
    refuse(
        period not in allowed and (period % 60 or not period),
        f"Period must be {', '.join(map(str, allowed))} or a multiple of 60, not {period}.",
    )
    has = "Sum, Average, Minimum, Maximum, SampleCount and percentiles such as p95"
    refuse(not known(statistic), f"The local AWS does not know the statistic {statistic!r}. It has {has}.")
