"""What a local AWS may be told at its start."""

from __future__ import annotations

import argparse

import pytest
from examples import examples

from emulator.platform.conditions import Conditions, SpotInterruption


def test_conditions_are_read_as_they_are_written() -> None:
    for conditions in (Conditions(), Conditions(SpotInterruption(1, 0.5), {"Concurrent executions": 10}, 0)):
        assert Conditions.from_json(conditions.to_json()) == conditions


@pytest.mark.parametrize(("text", "message"), examples(__file__, "refused"))
def test_what_is_no_condition_is_refused_by_name_and_value(text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        Conditions.from_json(text)
    assert message in str(refused.value)
