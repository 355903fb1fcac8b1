"""Metrics of the lines of CloudWatch Logs: those that a metric filter matches, and those in embedded metric format."""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Callable
from typing import Any

from ministack.core.responses import get_region
from ministack.services import cloudwatch_logs

from emulator.ministack.cloudwatch import metric_data
from emulator.ministack.cloudwatch.filter_patterns import compile_pattern, expressions, find, number
from emulator.ministack.patching import around
from emulator.platform.awsapi import Payload, service_model
from emulator.platform.clock import Clock
from emulator.platform.errors import ServiceError, refuse
from emulator.platform.validation import validate

_MOST, _MOST_WITH_REGEX = 100, 5
#: Of metrics that an embedded directive lists, and of values of one.
_MOST_EMBEDDED = 100
_HIGHEST = 2.0**360


def install(record: Callable[..., None], clock: Clock) -> None:
    """Have `record` called for lines that are written; see `Monitoring.record`."""
    around(cloudwatch_logs, "_put_metric_filter", _put)
    around(cloudwatch_logs, "_append_log_events", functools.partial(_append, record, clock))


def _put(inner: Callable[[Payload], Any], request: Payload) -> Any:
    (_, named), group = compile_pattern(request["filterPattern"]), request["logGroupName"]
    for to in request["metricTransformations"]:
        value, dimensions = to["metricValue"], to.get("dimensions") or {}
        for wrong, says in (
            (not math.isfinite(number(value)) and value not in named, "metric value must be a number or selector"),
            (not set(dimensions.values()) <= set(named), "dimension value must be valid selector"),
            (len(dimensions) > 3, "at most 3 dimensions"),
            (dimensions and "defaultValue" in to, "dimensions and default value are mutually exclusive properties"),
        ):
            refuse(wrong, f"Invalid metric transformation: {says}. Selectors of the pattern: {', '.join(named)}")
    of_group = {name: each for (of, name), each in cloudwatch_logs._metric_filters.items() if of == group}
    of_group[request["filterName"]] = request
    with_regex = [each for each in of_group.values() if expressions(each["filterPattern"])]
    for found, most, what in ((of_group, _MOST, ""), (with_regex, _MOST_WITH_REGEX, " with regular expressions")):
        if len(found) > most:
            raise ServiceError("LimitExceededException", f"A log group has at most {most} metric filters{what}.")
    return inner(request)


def _append(
    record: Callable[..., None], clock: Clock, inner: Callable[..., None], stream: Payload, events: list[Payload]
) -> None:
    inner(stream, events)
    for event in events:
        if '"CloudWatchMetrics"' in event["message"]:
            # AWS, too, leaves out what does not follow the format.
            with contextlib.suppress(ValueError, LookupError, TypeError, ArithmeticError, RecursionError, ServiceError):
                _publish(record, clock, json.loads(event["message"]))
    for (group, _), each in list(cloudwatch_logs._metric_filters.items()):
        if any(stream is one for one in cloudwatch_logs._log_groups.get(group, {}).get("streams", {}).values()):
            for event in events:
                _count(record, each, event["message"])


def _publish(record: Callable[..., None], clock: Clock, event: Payload) -> None:
    """Publish what a line says in the format of the user guide's "Specification: Embedded metric format"."""
    for directive in event["_aws"]["CloudWatchMetrics"]:
        for names in directive["Dimensions"] or [[]]:
            dimensions = {name: str(event[name]) for name in names}
            data = [
                {
                    "MetricName": metric["Name"],
                    "Values": found if isinstance(found := event[metric["Name"]], list) else [found],
                    "Unit": metric.get("Unit", "None"),
                    "Timestamp": event["_aws"]["Timestamp"] / 1000,
                }
                for metric in directive["Metrics"]
            ]
            most = max(len(data), *(len(datum["Values"]) for datum in data))
            refuse(most > _MOST_EMBEDDED, "There are too many metrics or values.")
            data[0]["Dimensions"] = [{"Name": name, "Value": value} for name, value in dimensions.items()]
            request = {"Namespace": directive["Namespace"], "MetricData": data}
            validate(request, service_model("cloudwatch").operation_model("PutMetricData").input_shape)
            metric_data.check(request, clock)
            for datum, value in ((each, value) for each in data for value in each["Values"]):
                record(get_region(), directive["Namespace"], datum["MetricName"], dimensions, value, datum["Unit"])


def _count(record: Callable[..., None], by: Payload, line: str) -> None:
    match, named = compile_pattern(by["filterPattern"])
    event = match(line)
    found = {each: [value for value in find(event, each) if type(value) in (str, int, float)] for each in named}
    for to in by["metricTransformations"]:
        values = (
            found.get(to["metricValue"], [to["metricValue"]]) if event is not None else [to.get("defaultValue", "")]
        )
        dimensions = {
            name: str(value) for name, each in (to.get("dimensions") or {}).items() for value in found[each][:1]
        }
        complete = len(dimensions) == len(to.get("dimensions") or {})
        if complete and values and abs(value := number(values[0])) <= _HIGHEST:
            place = get_region(), to["metricNamespace"], to["metricName"], dimensions
            record(*place, value, to.get("unit", "None"), digits=17)
