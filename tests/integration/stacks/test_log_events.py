"""FilterLogEvents: terms, streams, times and pages; other patterns are refused by name."""

from __future__ import annotations

import time

import pytest
from local_aws_harness import refused
from sagemaker_local import LocalSageMaker

NOW = int(time.time() * 1000)
MESSAGES = ("ERROR in a.b", "error in c", "WARN 1", "INFO a b")


@pytest.fixture(scope="module")
def group(aws: LocalSageMaker) -> str:
    aws.logs.create_log_group(logGroupName="g")
    for number, stream in enumerate(("one", "two")):
        aws.logs.create_log_stream(logGroupName="g", logStreamName=stream)
        events = [{"timestamp": NOW + 10 * at + number, "message": text} for at, text in enumerate(MESSAGES)]
        aws.logs.put_log_events(logGroupName="g", logStreamName=stream, logEvents=events)
    return "g"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("", "0123"), ("ERROR", "0"), ('"a.b"', "0"), ("in -ERROR", "1"), ("?WARN ?INFO", "23"), ('"a b"', "3")],
)
def test_terms_match_as_documented(aws: LocalSageMaker, group: str, pattern: str, found: str) -> None:
    events = aws.logs.filter_log_events(logGroupName=group, filterPattern=pattern, logStreamNamePrefix="o")["events"]
    assert [event["message"] for event in events] == [MESSAGES[int(number)] for number in found]


def test_pages_interleave_the_streams(aws: LocalSageMaker, group: str) -> None:
    pages = aws.logs.get_paginator("filter_log_events").paginate(
        logGroupName=group, startTime=NOW + 1, endTime=NOW + 30, PaginationConfig={"PageSize": 2}
    )
    found = [[event["timestamp"] - NOW for event in page["events"]] for page in pages]
    assert found == [[1, 10], [11, 20], [21, 30]]


@pytest.mark.parametrize("pattern", ['{ $.level = "ERROR" }', "[a, b]", "%E.*R%", "a.b", "?WARN INFO"])
def test_other_patterns_are_refused(aws: LocalSageMaker, group: str, pattern: str) -> None:
    refused(
        aws.logs.put_metric_filter,
        "NotImplemented",
        logGroupName=group,
        filterName="f",
        filterPattern="a",
        metricTransformations=[{"metricName": "m", "metricNamespace": "n", "metricValue": "1"}],
    )
    refused(aws.logs.filter_log_events, "InvalidParameterException", logGroupName=group, filterPattern=pattern)
