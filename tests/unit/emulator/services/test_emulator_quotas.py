"""Quotas: their table, what can be set, and how the command takes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.local.commands import app
from emulator.quotas.service import QuotaError, Quotas, parse


def test_every_quota_has_a_name_and_a_code_of_its_own() -> None:
    quotas = [quota for service in ("lambda", "codebuild", "sagemaker") for quota in Quotas().of(service)]
    assert len({quota.code for quota in quotas}) == len({quota.name for quota in quotas}) == len(quotas)


def test_what_is_given_holds_and_the_rest_is_as_it_was() -> None:
    quotas = Quotas({"ml.m5.large for endpoint usage": 0})
    limits = [quotas.limit(f"{kind} for endpoint usage") for kind in ("ml.m5.large", "ml.m5.xlarge", "ml.x99.large")]
    assert limits == [0, 20, 20]


def test_a_name_may_hold_anything_but_the_value_is_a_whole_number() -> None:
    assert parse("a=b=3") == ("a=b", 3)
    for text in ("a", "a=", "a=-1", "a=1.5"):
        with pytest.raises(QuotaError, match="is not NAME=VALUE"):
            parse(text)


@pytest.mark.parametrize(
    ("quota", "status", "message"),
    [
        ("nonsense", 2, "is not NAME=VALUE"),
        ("nonsense=1", 3, 'There is no quota named "nonsense". There are: "'),
        ("Concurrent executions=0", 3, "must be 1 or more, not 0"),
    ],
)
def test_the_command_refuses_a_quota_that_is_none(tmp_path: Path, quota: str, status: int, message: str) -> None:
    answer = CliRunner().invoke(app, ["up", "--state-dir", str(tmp_path), "--quota", quota])
    assert getattr(answer.exception, "exit_code", None) == status
    assert message in str(answer.exception)
