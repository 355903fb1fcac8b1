"""What a local AWS is told at its start reaches its server as a command line."""

import argparse

import pytest

from emulator.platform.conditions import Conditions, SpotInterruption, add_options


def parsed(*options):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return Conditions.of(parser.parse_args(options))


@pytest.mark.parametrize(
    "conditions",
    [Conditions(), Conditions(SpotInterruption(0.5, 2.0), {"Concurrent executions": 10, "a=b": 0}, 0.0, 1.5)],
)
def test_the_server_is_told_what_up_was_told(conditions):
    assert parsed(*conditions.options()) == conditions


@pytest.mark.parametrize(
    ("option", "message"),
    [("--spot-wait=-1", "-1 is no time"), ("--access-log-delay=inf", "0 or more"), ("--quota=x", "NAME=VALUE")],
)
def test_a_value_that_is_none_is_refused_with_what_is_allowed(option, message, capsys):
    with pytest.raises(SystemExit):
        parsed(option)
    assert message in capsys.readouterr().err
