"""`kennel init` writes settings that pass, and asks again for what would not."""

from __future__ import annotations

import io
import re
import sys
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from cli.operating import new_stage
from infra.settings import load

MAIL = ["--email", "me@example.org"]


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stages, with one in it."""
    monkeypatch.setattr(new_stage, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    (tmp_path / "dev.toml").write_text("[storage]\nretain = true\n")
    return tmp_path


def type_in(monkeypatch: pytest.MonkeyPatch, *answers: str) -> io.StringIO:
    typed = io.StringIO("".join(f"{answer}\n" for answer in answers))
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", typed)
    return typed


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"serving.kind": "serverless", "function.provisioned_concurrency": 0, "alarms": None, "cost_guard": None}),
        (["--endpoint", "instance", "--retain"], {"serving.mode": "throughput", "storage.retain": True}),
        (["--region", "eu-west-1", "--account", "012345678901"], {"account": "012345678901", "region": "eu-west-1"}),
        (["--email", '"ü"\\@example.org'], {"alarms.email": '"ü"\\@example.org', "storage.retain": False}),
        (MAIL, {"cost_guard.monthly_usd": 10}),  # at rest it costs 4.40
        ([*MAIL, "--endpoint", "instance", "--monthly-usd", "7"], {"cost_guard.monthly_usd": 7}),
    ],
)
def test_options_become_settings(stages: Path, kennel: Any, options: list[str], expected: dict[str, Any]) -> None:
    code, output = kennel("init", "--name", "trial", *options)
    assert code == 0 and "USD a month" in output and "kennel --stage trial deploy" in output, output
    settings = load("trial", stages)
    assert {place: attrgetter(place)(settings) for place in expected} == expected
    assert "instance" not in (stages / "trial.toml").read_text()  # a default


def test_everything_that_is_wrong_is_said_at_once_and_nothing_written(stages: Path, kennel: Any) -> None:
    wrong = {"name": "dev", "region": "eu", "endpoint": "cheap", "email": "\x7f@a.b", "monthly-usd": "9" * 5000}
    wrong["account"] = "\u0660" * 12  # digits, but not AWS's
    code, output = kennel("init", *(f"--{option}={answer}" for option, answer in wrong.items()))
    assert code == 2 and list(stages.iterdir()) == [stages / "dev.toml"]
    assert "kennel init --help" in output
    for said in ("stage: dev has its", "region: 'eu' is", "kind: should be", "email: cannot be", "usd: ", "account: "):
        assert said in output
    assert (stages / "dev.toml").read_text() == "[storage]\nretain = true\n"


def test_a_person_is_asked_again_for_the_answer_that_is_wrong(stages, kennel, monkeypatch) -> None:
    wrong_and_right = [("dev", "Trial", "trial"), ("eu-west-1",), ("12", "123456789012"), ("cheap", "instance")]
    wrong_and_right += [("maybe", "Y"), ("me@a.b",), ("-1", "")]
    typed = type_in(monkeypatch, *(answer for answers in wrong_and_right for answer in answers))
    code, output = kennel("init")
    assert code == 0, output
    prices = re.search(r"instance \(steady traffic; at rest ([\d.]+) USD a month\) or .* calls; ([\d.]+)\)", output)
    assert prices and float(prices[1]) > float(prices[2]) > 0
    settings = load("trial", stages)
    assert settings.account == "123456789012" and settings.storage.retain and not typed.read()
    assert settings.cost_guard and settings.cost_guard.monthly_usd == 200  # twice what it costs at rest


def test_only_what_no_option_says_is_asked(stages: Path, kennel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = type_in(monkeypatch, "", "no", "", "left")  # region, retain, e-mail
    code, output = kennel("init", "--name", "trial", "--endpoint", "serverless")
    assert (code, typed.read()) == (0, "left\n"), output
