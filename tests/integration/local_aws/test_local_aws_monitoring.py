"""Alarms and schedules of a stack, on a fast clock: they act, and what they acted on outlives the server."""

from __future__ import annotations

import json
import time

from local_aws_harness import LOGGING, LocalAws, policy
from waiting import wait_until

CONDITIONS = {"clock": 60}
SOURCE = "def handler(event, context):\n    print('called by', event['rule'])\n"
METRIC = {"Namespace": "N", "MetricName": "m", "Dimensions": [{"Name": "d", "Value": "1"}]}
OWNER = {"Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "kms:*", "Resource": "*"}
CLOUDWATCH = {"Principal": {"Service": "cloudwatch.amazonaws.com"}, "Action": "kms:*", "Resource": "*"}
TEMPLATE = {
    "Resources": {
        "Group": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "g"}},
        "Filter": {
            "Type": "AWS::Logs::MetricFilter",
            "Properties": {
                "LogGroupName": {"Ref": "Group"},
                "FilterPattern": "[kind = m*, d, bytes > 5]",
                "MetricTransformations": [
                    {
                        **{"MetricNamespace": "N", "MetricName": "m", "MetricValue": "$bytes"},
                        "Dimensions": [{"Key": "d", "Value": "$d"}],
                    }
                ],
            },
        },
        "Plain": {"Type": "AWS::SNS::Topic"},
        "Locked": {"Type": "AWS::SNS::Topic", "Properties": {"KmsMasterKeyId": {"Ref": "LockedKey"}}},
        "Open": {"Type": "AWS::SNS::Topic", "Properties": {"KmsMasterKeyId": {"Ref": "OpenKey"}}},
        "LockedKey": {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": policy(OWNER)}},
        "OpenKey": {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": policy(OWNER, CLOUDWATCH)}},
        "Alarm": {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                **METRIC,
                **{"Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1, "Threshold": 5},
                "ComparisonOperator": "GreaterThanThreshold",
                "AlarmActions": [{"Ref": "Plain"}, {"Ref": "Locked"}, {"Ref": "Open"}],
            },
        },
    }
}


def states(aws: LocalAws) -> dict[str, str]:
    found = aws.client("cloudwatch").describe_alarms(AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    alarms = {kind: found[kind] for kind in ("MetricAlarms", "CompositeAlarms")}
    return {kind: alarm["StateValue"] for kind, several in alarms.items() for alarm in several}


def test_alarms_of_a_stack_act_and_metrics_outlive_the_server(aws: LocalAws) -> None:
    aws.cloudformation.create_stack(StackName="s", TemplateBody=json.dumps(TEMPLATE))
    (alarm,) = wait_until(lambda: aws.client("cloudwatch").describe_alarms()["MetricAlarms"])
    aws.client("cloudwatch").put_composite_alarm(AlarmName="any", AlarmRule=f"ALARM({alarm['AlarmName']})")
    stream = {"logGroupName": "g", "logStreamName": "s"}
    aws.logs.create_log_stream(**stream)
    events = [
        {"timestamp": int(time.time() * 1000), "message": line} for line in ("m 1 6.125", "m 1 5", "x 1 9", "m 2 8")
    ]
    aws.logs.put_log_events(**stream, logEvents=events)
    wait_until(lambda: states(aws) == {"MetricAlarms": "ALARM", "CompositeAlarms": "ALARM"})
    told = aws.client("cloudwatch").describe_alarm_history(HistoryItemType="Action")["AlarmHistoryItems"]
    words = [(item["HistorySummary"].split()[0], item["HistorySummary"].split("-")[3]) for item in told]
    assert sorted(words) == [("Failed", "Locked"), ("Successfully", "Open"), ("Successfully", "Plain")]
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
