"""Quotas: their table, what can be set, and how the commands take it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.local.commands import app
from emulator import __main__ as command_line
from emulator.quotas.service import QuotaError, Quotas, parse


def test_every_quota_has_a_name_and_a_code_of_its_own() -> None:
    quotas = [quota for service in ("lambda", "codebuild", "sagemaker") for quota in Quotas().of(service)]
    assert len({quota.code for quota in quotas}) == len({quota.name for quota in quotas}) == len(quotas)


def test_what_is_given_holds_and_the_rest_is_as_it_was() -> None:
    quotas = Quotas({"ml.m5.large for endpoint usage": 0})
    limits = [quotas.limit(f"{kind} for endpoint usage") for kind in ("ml.m5.large", "ml.m5.xlarge", "ml.x99.large")]
    assert limits == [0, 20, 20]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ml.m5.large for training": 1}, 'There is no quota named "ml.m5.large for training"'),
        ({"Concurrent executions": 0}, "must be 1 or more, not 0"),
    ],
)
def test_a_quota_that_is_none_is_refused_with_what_there_is(given: dict[str, int], message: str) -> None:
    with pytest.raises(QuotaError, match=message):
        Quotas(given)


def test_a_name_may_hold_anything_but_the_value_is_a_whole_number() -> None:
    assert parse("a=b=3") == ("a=b", 3)
    for text in ("a", "a=", "a=-1", "a=1.5"):
        with pytest.raises(QuotaError, match="is not NAME=VALUE"):
            parse(text)


@pytest.mark.parametrize(("quota", "status"), [("nonsense", 2), ("nonsense=1", 3)])
def test_commands_refuse_a_quota_that_is_none(tmp_path: Path, quota: str, status: int) -> None:
    answer = CliRunner().invoke(app, ["up", "--state-dir", str(tmp_path), "--quota", quota])
    assert getattr(answer.exception, "exit_code", None) == status
    assert "nonsense" in str(answer.exception)


def test_the_module_s_own_command_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["up", "--state-dir", str(tmp_path), "--quota", "nonsense=1"]) == 1
    assert 'no quota named "nonsense"' in capsys.readouterr().err
