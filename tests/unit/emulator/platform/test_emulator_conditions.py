"""What a local AWS may be told at its start."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.errors import UsageError
from cli.local.commands import app
from emulator.platform.conditions import Conditions, SpotInterruption

MEMBERS = "spot_interruption, quotas, access_log_seconds, stop_grace_seconds, clock, instance_start_seconds"


def test_conditions_are_read_as_they_are_written() -> None:
    for conditions in (Conditions(), Conditions(SpotInterruption(1, 0.5), {"Concurrent executions": 10}, 0)):
        assert Conditions.from_json(conditions.to_json()) == conditions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "{ is not JSON"),
        ("[1]", f"--conditions is [1]: give an object with any of {MEMBERS}."),
        ('{"access_log_second": 1}', f"--conditions has no access_log_second. There are: {MEMBERS}."),
        ('{"stop_grace_seconds": -1}', "stop_grace_seconds is -1: give seconds"),
        ('{"stop_grace_seconds": "x"}', "stop_grace_seconds is 'x': give seconds"),
        ('{"access_log_seconds": Infinity}', "access_log_seconds is inf: give seconds"),
        ('{"access_log_seconds": NaN}', "access_log_seconds is nan: give seconds"),
        ('{"access_log_seconds": true}', "access_log_seconds is True: give seconds"),
        ('{"clock": 0.5}', "clock is 0.5: give a number from 1 to 60."),
        ('{"clock": NaN}', "clock is nan: give a number from 1 to 60."),
        ('{"spot_interruption": {}}', "spot_interruption.after_seconds is None: give seconds"),
        ('{"spot_interruption": {"after": 1}}', "spot_interruption has no after. There are: after_seconds, wait_secon"),
        ('{"spot_interruption": 5}', "spot_interruption is 5: give an object"),
        ('{"quotas": null}', "quotas is None: give an object"),
        (
            '{"quotas": {"Concurrent executions": "10"}}',
            "The quota \"Concurrent executions\" is '10': give an integer.",
        ),
    ],
)
def test_what_is_no_condition_is_refused_by_name_and_value(text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        Conditions.from_json(text)
    assert message in str(refused.value)


@pytest.mark.parametrize("option", ["--access-log-delay", "--interrupt-spot-after", "--instance-start"])
def test_the_command_refuses_a_time_without_end(tmp_path: Path, option: str) -> None:
    answer = CliRunner().invoke(app, ["up", "--state-dir", str(tmp_path), option, "inf"])
    assert isinstance(answer.exception, UsageError)
    assert "is inf: give seconds" in str(answer.exception)
