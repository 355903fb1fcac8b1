"""Provisioned concurrency is warm before it is called, follows its alias, and spills over; Lambda's metrics say so."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from local_aws_harness import LAMBDA_TRUST, LocalAws
from waiting import wait_until

# Says how its environment came to be; waits for a file, if told so.
SOURCE = """
import os, pathlib, time, uuid
HERE = uuid.uuid4().hex

def handler(event, context):
    if event.get("wait_for"):
        pathlib.Path(event["started"]).touch()
        while not pathlib.Path(event["wait_for"]).exists():
            time.sleep(0.01)
    kind = os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]
    return {"kind": kind, "here": HERE, "version": context.function_version, "arn": context.invoked_function_arn}
"""


def template(role: str, source: str, version: str, provisioned: int | None) -> dict[str, Any]:
    """A function, a version under a logical id of its own, and the alias `live` of it."""
    code = {"ZipFile": source}
    function = {"FunctionName": "warm", "Runtime": "python3.14", "Handler": "index.handler", "Role": role, "Code": code}
    alias: dict[str, Any] = {
        "FunctionName": {"Ref": "Function"},
        "Name": "live",
        "FunctionVersion": {"Fn::GetAtt": [version, "Version"]},
    }
    if provisioned:
        alias["ProvisionedConcurrencyConfig"] = {"ProvisionedConcurrentExecutions": provisioned}
    return {
        "Resources": {
            "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
            version: {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Function"}}},
            "Alias": {"Type": "AWS::Lambda::Alias", "Properties": alias},
        }
    }


def call(aws: LocalAws, **event: str) -> dict[str, Any]:
    answer = aws.lambda_.invoke(FunctionName="warm", Qualifier="live", Payload=json.dumps(event))
    return dict(json.loads(answer["Payload"].read()))


def metric(aws: LocalAws, name: str, statistic: str, **dimensions: str) -> float:
    """A statistic of one of Lambda's metrics over the last hour."""
    query = {
        "MetricStat": {
            "Metric": {
                "Namespace": "AWS/Lambda",
                "MetricName": name,
                "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
            },
            "Period": 3600,
            "Stat": statistic,
        },
        "Id": "m",
    }
    now = datetime.now(UTC)
    found = aws.client("cloudwatch").get_metric_data(
        MetricDataQueries=[query], StartTime=now - timedelta(hours=1), EndTime=now + timedelta(hours=1)
    )
    values = found["MetricDataResults"][0]["Values"]
    return float(
        sum(values) if statistic == "Sum" else min(values) if statistic == "Minimum" else max(values, default=-1)
    )


def status(aws: LocalAws) -> tuple[Any, ...]:
    config = aws.lambda_.get_provisioned_concurrency_config(FunctionName="warm", Qualifier="live")
    return config["Status"], config["AvailableProvisionedConcurrentExecutions"], config.get("StatusReason")


def test_provisioned_concurrency_is_warm_whatever_happens(aws: LocalAws, tmp_path: Path) -> None:
    role = aws.role("warm", LAMBDA_TRUST)
    made = aws.deploy("warm", template(role, SOURCE, "One", 1))
    assert made["StackStatus"] == "CREATE_COMPLETE", made["Reasons"]
    # CloudFormation has waited for it.
    assert status(aws) == ("READY", 1, None)
    first = call(aws)
    assert (first["kind"], first["version"]) == ("provisioned-concurrency", "1")
    assert first["arn"].endswith(":function:warm:live")

    # While it is in use, a call is served on demand.
    started, proceed = tmp_path / "started", tmp_path / "proceed"
    holding = threading.Thread(target=call, args=(aws,), kwargs={"started": str(started), "wait_for": str(proceed)})
    holding.start()
    try:
        wait_until(started.exists)
        assert call(aws)["kind"] == "on-demand"
    finally:
        proceed.touch()
        holding.join()
    assert call(aws)["here"] == first["here"]

    # What CloudWatch has of it: four calls of the alias, of which one on demand, two at the same time.
    resource = {"FunctionName": "warm", "Resource": "warm:live"}
    wait_until(lambda: metric(aws, "Invocations", "Sum", **resource) == 4)
    assert metric(aws, "Invocations", "Sum", FunctionName="warm") == metric(aws, "Invocations", "Sum") == 4
    assert metric(aws, "Errors", "Sum", **resource, ExecutedVersion="1") == 0
    assert metric(aws, "ConcurrentExecutions", "Maximum", **resource) == 2
    assert metric(aws, "ProvisionedConcurrencySpilloverInvocations", "Sum", **resource) == 1
    assert metric(aws, "ProvisionedConcurrencyUtilization", "Maximum", **resource) == 1.0
    assert metric(aws, "Duration", "Minimum", **resource) < metric(aws, "Duration", "Maximum", **resource)

    # The alias moves to a version that starts, and stays where it is when the version does not.
    moved = aws.deploy("warm", template(role, SOURCE + "\n", "Two", 1), update=True)
    assert moved["StackStatus"] == "UPDATE_COMPLETE", moved["Reasons"]
    second = call(aws)
    assert (second["kind"], second["version"]) == ("provisioned-concurrency", "2")
    broken = aws.deploy("warm", template(role, "import nothing_of_this_name", "Three", 1), update=True)
    assert broken["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "failed to be applied. Reason: FUNCTION_ERROR_INIT_FAILURE" in broken["Reasons"]
    assert call(aws)["here"] == second["here"]

    # After a restart of the server it is there again, before anybody calls.
    aws.kill()
    aws.up()
    wait_until(lambda: status(aws) == ("READY", 1, None))
    restored = call(aws)
    assert (restored["kind"], restored["version"]) == ("provisioned-concurrency", "2")
    assert restored["here"] != second["here"]


def test_a_function_that_does_not_start_has_no_provisioned_concurrency(aws: LocalAws) -> None:
    aws.function("broken", "import nothing_of_this_name")
    aws.lambda_.publish_version(FunctionName="broken")
    which = {"FunctionName": "broken", "Qualifier": "1"}
    asked = aws.lambda_.put_provisioned_concurrency_config(**which, ProvisionedConcurrentExecutions=1)
    assert asked["Status"] == "IN_PROGRESS"
    get = aws.lambda_.get_provisioned_concurrency_config
    failed = wait_until(lambda: (found := get(**which))["Status"] != "IN_PROGRESS" and found)
    assert (failed["Status"], failed["StatusReason"]) == ("FAILED", "FUNCTION_ERROR_INIT_FAILURE")
