"""Scaling that acts, with a clock, alarms and a capacity that the tests move."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_scaling import TARGET, LocalScaling

from emulator.ministack.schedules import next_date
from emulator.platform.awsapi import Payload, ServiceError

STEPS = {"AdjustmentType": "ChangeInCapacity", "Cooldown": 60}


@pytest.fixture
def aws(tmp_path: Path) -> LocalScaling:
    return LocalScaling(tmp_path)


def told(activity: Payload) -> list[str]:
    return [activity[member] for member in ("Description", "Cause", "StatusCode", "StatusMessage")]


def test_an_alarm_scales_out_and_the_activity_says_so(aws: LocalScaling) -> None:
    high, _ = aws.track()
    assert aws.alarm(high, 250.0, reached=False) == 3
    (begun,) = aws.activities()
    cause = f"monitor alarm {high} in state ALARM triggered policy rps"
    said = "Successfully set desired instance count to 3."
    waits = f"{said} Waiting for change to be fulfilled by sagemaker."
    assert told(begun) == ["Setting desired instance count to 3.", cause, "InProgress", waits]
    aws.settle()
    (ended,) = aws.activities()
    assert told(ended)[2:] == ["Successful", f"{said} Change successfully fulfilled by sagemaker."]
    assert {"EndTime"} == ended.keys() - begun.keys()


def test_activities_are_told_for_six_weeks(aws: LocalScaling) -> None:
    high, _ = aws.track()
    aws.alarm(high, 150.0)
    aws.alarm(high, 150.0, after=42 * 86400 - 1)
    assert len(aws.activities()) == 2
    aws.alarm(high, 150.0, after=400)
    assert [activity["Description"][-2] for activity in aws.activities()] == ["4", "3"]


def test_scale_in_waits_for_its_cooldown_which_runs_on_the_clock_of_aws(tmp_path: Path) -> None:
    aws = LocalScaling(tmp_path, clock=10)
    high, low = aws.track(ScaleInCooldown=200)
    aws.alarm(high, 400.0)
    assert [aws.alarm(low, value, after=after) for value, after in ((70.0, 0), (20.0, 19), (20.0, 2))] == [3, 3, 1]


def test_policies_scale_in_together_and_the_largest_capacity_counts(aws: LocalScaling) -> None:
    (high, low), (_, other) = aws.track(), aws.track("concurrency", target=10.0)
    aws.alarm(high, 400.0)
    assert aws.alarm(low, 10.0) == 4
    assert aws.alarm(other, 5.0) == 2


@pytest.mark.parametrize(("direction", "expected"), [("In", [4, 4]), ("Out", [1, 1])])
def test_a_suspended_direction_stays_as_it_is(aws: LocalScaling, direction: str, expected: list[int]) -> None:
    high, low = aws.track()
    state = {f"DynamicScaling{direction}Suspended": True}
    aws.call("RegisterScalableTarget", **TARGET, SuspendedState=state)
    assert [aws.alarm(high, 400.0), aws.alarm(low, 10.0)] == expected


def test_what_the_service_refuses_is_a_failed_activity_and_begins_no_cooldown(aws: LocalScaling) -> None:
    high, _ = aws.track()
    aws.capacity.refusal = ServiceError("ValidationException", 'Cannot update in-progress endpoint "dogs".')
    assert aws.alarm(high, 200.0) == 1
    (failed,) = aws.activities()
    reason = (
        'Reason: Cannot update in-progress endpoint "dogs". (Service: AmazonSageMaker; Status Code: 400; Error Code: '
    )
    assert failed["StatusMessage"].startswith(f"Failed to set desired instance count to 2. {reason}ValidationException")
    aws.capacity.refusal = None
    assert aws.alarm(high, 200.0) == 2


def test_a_change_that_others_undo_is_not_called_successful(aws: LocalScaling) -> None:
    high, _ = aws.track()
    for wanted, status in ((1, "Unfulfilled"), (4, "Overridden")):
        aws.alarm(high, 300.0, reached=False)
        aws.capacity.wanted = wanted
        aws.settle()
        assert aws.activities()[0]["StatusCode"] == status


def test_other_bounds_move_the_capacity_and_where_that_was_refused_again_after_a_minute(aws: LocalScaling) -> None:
    aws.capacity.refusal = ServiceError("ValidationException", 'Cannot update in-progress endpoint "dogs".')
    aws.call("RegisterScalableTarget", **TARGET, MinCapacity=2)
    assert aws.settle() == 1
    aws.capacity.refusal = None
    for after, expected in ((59, 1), (1, 2)):
        aws.now += after
        assert aws.settle() == expected
    aws.now += 1
    aws.call("RegisterScalableTarget", **TARGET, MinCapacity=0, MaxCapacity=0)
    assert aws.settle() == 0
    causes = [activity["Cause"] for activity in aws.activities()]
    assert causes[:2] == ["maximum capacity was set to 0", "minimum capacity was set to 2"]


@given(st.integers(1_824_936_000, 1_824_952_000), st.sampled_from(["30 2 * * ? *", "* * * * ? *", "0 0/2 ? * SUN *"]))
def test_the_next_run_is_later_also_when_daylight_saving_time_ends(after: int, fields: str) -> None:
    # It is 2:00 at 1,824,940,800 and an hour later once more.
    date = next_date({"Schedule": f"cron({fields})", "Timezone": "Europe/Berlin"}, after)
    assert date is not None
    assert after < date <= after + 9 * 86400


@pytest.mark.parametrize(
    ("schedule", "zone", "after"),
    [
        ("at(2027-01-15T09:00:00)", "UTC", 3600), ("at(2027-01-15T10:00:00)", "Europe/Berlin", 3600),
        ("rate(10 minutes)", "UTC", 600), ("cron(30 8 * * ? *)", "UTC", 1800),
        ("cron(30 9 ? * FRI *)", "Europe/Berlin", 1800), ("cron(0 8 1 2 ? *)", "UTC", 17 * 86400),
    ],
)  # fmt: skip
def test_a_scheduled_action_changes_the_bounds_at_its_time(
    tmp_path: Path, schedule: str, zone: str, after: float
) -> None:
    aws = LocalScaling(tmp_path, clock=60)
    action = {"ScheduledActionName": "day", "Schedule": schedule, "Timezone": zone}
    aws.call("PutScheduledAction", **TARGET, **action, ScalableTargetAction={"MinCapacity": 3, "MaxCapacity": 5})
    aws.now += after / 60 - 1
    assert aws.settle() == 1
    aws.now += 1
    assert aws.settle() == 3
    changed, moved = sorted(aws.activities(), key=lambda activity: "desired" in activity["Description"])
    bounds = "min capacity to 3 and max capacity to 5"
    cause = "scheduled action name day was triggered"
    assert moved["Cause"] == "minimum capacity was set to 3"
    assert told(changed) == [f"Setting {bounds}", cause, "Successful", f"Successfully set {bounds}"]


def test_a_restart_goes_on_with_what_was_under_way_and_keeps_cooldowns(aws: LocalScaling) -> None:
    high, _ = aws.track()
    aws.alarm(high, 200.0, reached=False)
    aws.up()
    aws.capacity.settled = True
    aws.service.start()
    aws.service.stop()
    aws.up()
    assert aws.activities()[0]["StatusCode"] == "Successful"
    assert [aws.alarm(high, 200.0), aws.alarm(high, 200.0, after=301)] == [2, 4]


def test_a_step_policy_takes_the_aggregated_metric(aws: LocalScaling) -> None:
    steps = [
        {"MetricIntervalLowerBound": 0, "MetricIntervalUpperBound": 20, "ScalingAdjustment": 1},
        {"MetricIntervalLowerBound": 20, "ScalingAdjustment": 3},
    ]
    configuration = {**STEPS, "StepAdjustments": steps, "MetricAggregationType": "Maximum"}
    arn = aws.call("PutScalingPolicy", **TARGET, PolicyName="s", StepScalingPolicyConfiguration=configuration)
    aws.monitoring.put_alarm("eu-west-1", {"AlarmName": "a", "Threshold": 100, "AlarmActions": [arn["PolicyARN"]]})
    assert aws.alarm("a", 125.0, 110.0) == 4


def test_alarms_are_made_as_aws_makes_them_and_stay_with_their_policy(aws: LocalScaling) -> None:
    high, low = aws.track()
    assert aws.track(target=90.0) == [high, low]
    assert ("-AlarmHigh-" in high, "-AlarmLow-" in low) == (True, True)
    made = aws.monitoring.alarms["eu-west-1", low]
    dimensions = [{"Name": "EndpointName", "Value": "Dogs"}, {"Name": "VariantName", "Value": "AllTraffic"}]
    assert (made["MetricName"], made["Statistic"], made["Dimensions"]) == ("InvocationsPerInstance", "Sum", dimensions)
    policy = made["AlarmActions"][0]
    assert made["AlarmDescription"] == f"DO NOT EDIT OR DELETE. For TargetTrackingScaling policy {policy}."
    assert made["Threshold"] == 81.0
    assert aws.track(DisableScaleIn=True) == [high]
    assert aws.monitoring.alarms.keys() == {("eu-west-1", high)}
