"""Names in a report may be hostile: in all formats they are text. SARIF keeps to its official schema; exit codes."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import jsonschema
import pytest
from fake_account import FakeAccount
from fake_stage import FakeStage
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli import main
from cli.auditing import command
from cli.auditing.findings import Finding, NotChecked, Report, name_of
from cli.auditing.reports.formats import as_html, as_json, as_sarif, as_table
from cli.auditing.rules import RULES, Severity
from cli.console import SafeConsole, progress_bar

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[2J\u202e[click](https://evil.example)\x9b2J"
UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")
SCHEMA = json.loads(Path(__file__).with_name("sarif-schema-2.1.0.json").read_text(encoding="utf-8"))


def report(text: str, *rules: str) -> Report:
    """A report whose every text is this one."""
    found = tuple(Finding(rule, RULES[rule].severity, text, text, text, {"Sid": text}) for rule in rules)
    return Report("1" * 12, text, datetime.now(UTC), found, (NotChecked(text, text, (text,)),))


@given(st.one_of(st.just(EVIL), st.text()))
def test_whatever_a_resource_is_called_is_text(text: str) -> None:
    made = report(text, "role-unused")
    page = as_html(made)
    assert not re.search("<(script|img|a |link|iframe)|url\\(|@import|http-equiv=.refresh", page, re.IGNORECASE)
    assert "default-src 'none'" in page
    screen = SafeConsole()
    screen.file = io.StringIO()
    screen.print(as_table(made))
    assert screen.file.getvalue().count("\n") == 6, "no line of its own"
    sarif = json.loads(as_sarif(made))
    message = sarif["runs"][0]["results"][0]["message"]["text"]
    assert not re.search(r"(?<!\\)(\\\\)*[\[\]]", message), "no link"
    for shown in (page, screen.file.getvalue(), message):
        assert not UNSAFE.search(shown)
    assert json.loads(as_json(made))["findings"][0]["resource"] == text


def test_sarif_keeps_to_the_schema() -> None:
    made = json.loads(as_sarif(report(EVIL, *RULES)))
    jsonschema.Draft4Validator(SCHEMA).validate(made)
    assert [each["ruleId"] for each in made["runs"][0]["results"]] == list(RULES)


RANKED = list(Severity)
EXIT_CODES = [
    *((worst, ["--fail-on", least], 6 if worst <= least else 0) for worst, least in product(range(4), range(4))),
    (None, [], 4),  # next to nothing could be checked
    *((None, ["--format", name], 0) for name in ("table", "json", "sarif", "html")),
    *((None, wrong, 2) for wrong in (["--region", "nowhere"], ["--backup", "without-fix"])),
]


@pytest.mark.parametrize(("worst", "arguments", "exit_code"), EXIT_CODES)
def test_the_exit_code_says_whether_there_is_something_as_bad(
    worst: int | None, arguments: list[str | int], exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [] if worst is None else [next(rule for rule, its in RULES.items() if its.severity == RANKED[worst])]
    made = report(EVIL, *rules)
    if exit_code == 4:
        made = replace(made, not_checked=tuple(NotChecked(name_of(check), EVIL) for check in command.GLOBAL))

    def assess(*_: object) -> Report:
        with progress_bar("Looking", 2) as done:
            done(1)
        return made

    monkeypatch.setattr(command, "assess", assess)
    monkeypatch.setattr("cli.console._PLAIN_INTERVAL", 0.01)
    aws = FakeAccount()
    aws.answers["get_caller_identity"] = {"Account": "1" * 12}
    aws.answers["describe_regions"] = {"Regions": [{"RegionName": "r"}]}
    monkeypatch.setattr(main, "Stage", lambda *_: FakeStage("dev", aws))
    given = [RANKED[each] if isinstance(each, int) else each for each in arguments]
    result = CliRunner().invoke(main.app, ["audit", *given])
    assert getattr(result.exception, "exit_code", 0) == exit_code, result.output
    assert not UNSAFE.search(result.output)
    if {"json", "sarif"} & set(arguments):
        json.loads(result.stdout)
