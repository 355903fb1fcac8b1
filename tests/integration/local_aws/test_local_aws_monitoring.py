"""Alarms and schedules of a stack, on a fast clock: they act, and what they acted on outlives the server."""

from __future__ import annotations

import json
import time
from pathlib import Path

from local_aws_harness import LOGGING, LocalAws
from waiting import wait_until

CONDITIONS = {"clock": 60}
SOURCE = "def handler(event, context):\n    print('called by', event['rule'])\n"
TEMPLATE = Path(__file__).with_name("alarm.yaml").read_text(encoding="utf-8")


def states(aws: LocalAws) -> dict[str, str]:
    found = aws.client("cloudwatch").describe_alarms(AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    alarms = {kind: found[kind] for kind in ("MetricAlarms", "CompositeAlarms")}
    return {kind: alarm["StateValue"] for kind, several in alarms.items() for alarm in several}


def test_alarms_of_a_stack_act_and_metrics_outlive_the_server(aws: LocalAws) -> None:
    aws.deploy("s", TEMPLATE)
    (alarm,) = aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
    aws.client("cloudwatch").put_composite_alarm(AlarmName="any", AlarmRule=f"ALARM({alarm['AlarmName']})")
    stream = {"logGroupName": "g", "logStreamName": "s"}
    aws.logs.create_log_stream(**stream)
    directive = {"Namespace": "E", "Dimensions": [["d"]], "Metrics": [{"Name": "m"}, {"Name": "n"}]}
    now = int(time.time() * 1000)
    embedded = {"_aws": {"Timestamp": now, "CloudWatchMetrics": [directive]}, "d": "1", "m": [1, 2.5], "n": 4}
    lines = ("m 1 6.125", "m 1 5", "x 1 9", "m 2 8", json.dumps(embedded), json.dumps(embedded | {"d": "2"})[:-9])
    events = [{"timestamp": now, "message": line} for line in lines]
    aws.logs.put_log_events(**stream, logEvents=events)
    wait_until(lambda: states(aws) == {"MetricAlarms": "ALARM", "CompositeAlarms": "ALARM"})
    told = aws.client("cloudwatch").describe_alarm_history(HistoryItemType="Action")["AlarmHistoryItems"]
    words = [(item["HistorySummary"].split()[0], item["HistorySummary"].split("-")[3]) for item in told]
    assert sorted(words) == [("Failed", "Locked"), ("Successfully", "Open"), ("Successfully", "Plain")]
    assert [aws.statistic("E", name, d="1") for name in "mn"] == [3.5, 4]
    wait_until(lambda: states(aws)["MetricAlarms"] == "INSUFFICIENT_DATA")
    aws.kill()
    aws.up()
    aws.logs.put_log_events(**stream, logEvents=events[:1])
    wait_until(lambda: aws.statistic("N", "m", d="1") == 12.25)
    aws.client("cloudwatch").delete_alarms(AlarmNames=["any"])
    aws.cloudformation.delete_stack(StackName="s")
    wait_until(lambda: not states(aws))


def test_a_rule_calls_the_function_that_allows_it_and_no_other(aws: LocalAws) -> None:
    events, function = aws.client("events"), aws.function("scheduled", SOURCE)
    aws.iam.attach_role_policy(RoleName="scheduled-function", PolicyArn=LOGGING)
    for name, schedule in (("allowed", "cron(* * * * ? *)"), ("denied", "rate(1 minute)")):
        arn = events.put_rule(Name=name, ScheduleExpression=schedule)["RuleArn"]
        events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": function, "Input": json.dumps({"rule": name})}])
        if name == "allowed":
            permission = {"Action": "lambda:InvokeFunction", "Principal": "events.amazonaws.com", "SourceArn": arn}
            aws.lambda_.add_permission(FunctionName="scheduled", StatementId="rule", **permission)

    def metrics() -> set[tuple[str, str]]:
        found = aws.client("cloudwatch").list_metrics(Namespace="AWS/Events")["Metrics"]
        return {(metric["MetricName"], metric["Dimensions"][0]["Value"]) for metric in found}

    wait_until(lambda: metrics() == {("Invocations", "allowed"), ("FailedInvocations", "denied")})
    group = "/aws/lambda/scheduled"
    wait_until(lambda: aws.logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"])
    lines = wait_until(lambda: aws.logs.filter_log_events(logGroupName=group, filterPattern="called")["events"])
    assert {line["message"].strip() for line in lines} == {"called by allowed"}
