"""What a local AWS may be told at its start."""

from __future__ import annotations

import argparse

import pytest

from emulator.platform.conditions import Conditions, SpotInterruption


def test_conditions_are_read_as_they_are_written() -> None:
    for conditions in (Conditions(), Conditions(SpotInterruption(1, 0.5), {"Concurrent executions": 10}, 0)):
        assert Conditions.from_json(conditions.to_json()) == conditions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is '{': Invalid JSON"),
        ("[1]", "Conditions are spot_interruption, quotas, access_log_seconds, stop_grace_seconds, clock, instance_s"),
        ('{"access_log_second": 1}', "access_log_second is 1: Unexpected"),
        ('{"stop_grace_seconds": -1}', "stop_grace_seconds is -1: Input should be greater than or equal to 0"),
        ('{"stop_grace_seconds": "x"}', "stop_grace_seconds is 'x': Input should be a valid number"),
        ('{"access_log_seconds": Infinity}', "access_log_seconds is inf: Input should be a finite number"),
        ('{"access_log_seconds": NaN}', "access_log_seconds is nan: Input should be a finite number"),
        ('{"access_log_seconds": true}', "access_log_seconds is True: Input should be a valid number"),
        ('{"clock": 0.5}', "clock is 0.5: Input should be greater than or equal to 1"),
        ('{"clock": NaN}', "clock is nan: Input should be"),
        ('{"spot_interruption": {}}', "spot_interruption.after_seconds is {}: Field required"),
        ('{"spot_interruption": {"after_seconds": 1, "after": 1}}', "spot_interruption.after is 1: Unexpected"),
        ('{"quotas": null}', "quotas is None: Input should be"),
        ('{"quotas": {"Concurrent executions": "10"}}', "quotas.Concurrent executions is '10': Input should be a vali"),
    ],
)
def test_what_is_no_condition_is_refused_by_name_and_value(text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        Conditions.from_json(text)
    assert message in str(refused.value)
