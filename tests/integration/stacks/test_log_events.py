"""CloudWatch Logs: events are filtered and counted, and what AWS refuses is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest
from local_aws_harness import refused
from sagemaker_local import LocalSageMaker
from waiting import wait_until

NOW = int(time.time() * 1000)
MESSAGES = ("ERROR in a.b", "error in c", "WARN 1", "INFO a b")

METRIC = {"metricName": "m", "metricNamespace": "n", "metricValue": "2", "defaultValue": 0}
FILTER = {"filterName": "f", "filterPattern": "a", "metricTransformations": [METRIC]}


@pytest.fixture(scope="module")
def group(aws: LocalSageMaker) -> str:
    aws.logs.create_log_group(logGroupName="g")
    for number, stream in enumerate(("one", "two")):
        aws.logs.create_log_stream(logGroupName="g", logStreamName=stream)
        events = [{"timestamp": NOW + 10 * at + number, "message": text} for at, text in enumerate(MESSAGES)]
        aws.logs.put_log_events(logGroupName="g", logStreamName=stream, logEvents=events)
    return "g"


def test_events_are_filtered_by_stream_and_pattern(aws: LocalSageMaker, group: str) -> None:
    found = aws.logs.filter_log_events(logGroupName=group, filterPattern="%^[EI]%", logStreamNamePrefix="o")["events"]
    assert [event["message"] for event in found] == ["ERROR in a.b", "INFO a b"]


def test_pages_interleave_the_streams(aws: LocalSageMaker, group: str) -> None:
    pages = aws.logs.get_paginator("filter_log_events").paginate(
        logGroupName=group, startTime=NOW + 1, endTime=NOW + 30, PaginationConfig={"PageSize": 2}
    )
    found = [[event["timestamp"] - NOW for event in page["events"]] for page in pages]
    assert found == [[1, 10], [11, 20], [21, 30]]


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        *(("filter_log_events", {"filterPattern": each}) for each in ("{ $.a > b }", "[a, b", "%(a)%", "a.b")),
        *(("filter_log_events", each) for each in ({"limit": 10_001}, {"nextToken": "x"})),
        ("get_log_events", {"logStreamName": "one", "limit": 10_001}),
        *(("describe_log_streams", each) for each in ({"orderBy": "Newest"}, {"nextToken": "x"})),
        ("describe_log_streams", {"orderBy": "LastEventTime", "logStreamNamePrefix": "o"}),
        ("put_metric_filter", {**FILTER, "filterPattern": "{ $.a > b }"}),
        ("put_metric_filter", {**FILTER, "metricTransformations": [{**METRIC, "metricValue": "$.a"}]}),
        ("put_metric_filter", {**FILTER, "metricTransformations": [{**METRIC, "dimensions": {"d": "text"}}]}),
    ],
)
def test_what_aws_refuses_is_refused(aws: LocalSageMaker, group: str, operation: str, request_: dict[str, Any]) -> None:
    refused(getattr(aws.logs, operation), "InvalidParameterException", logGroupName=group, **request_)


def test_metric_filters_count_lines_and_give_the_default_for_others(aws: LocalSageMaker, group: str) -> None:
    aws.logs.put_metric_filter(logGroupName=group, **FILTER)
    events = [{"timestamp": NOW, "message": text} for text in ("a", "b", "c")]
    aws.logs.put_log_events(logGroupName=group, logStreamName="one", logEvents=events)
    wait_until(lambda: (aws.statistic("n", "m"), aws.statistic("n", "m", "SampleCount")) == (2, 3))
