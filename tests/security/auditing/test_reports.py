"""Names in a report may be hostile: in a table, a page and SARIF they are text. SARIF keeps to its official schema."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
from fake_stage import FakeStage
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli import main
from cli.auditing import command
from cli.auditing.findings import Finding, NotChecked, Report
from cli.auditing.reports.formats import as_html, as_json, as_sarif, table
from cli.auditing.rules import RULES, Severity
from cli.console import SafeConsole

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[2J\u202e[click](https://evil.example)\x9b2J"
UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")
# Of OASIS, as published: github.com/oasis-tcs/sarif-spec, sarif-2.1/schema.
SCHEMA = json.loads(Path(__file__).with_name("sarif-schema-2.1.0.json").read_text(encoding="utf-8"))


def report(text: str, *rules: str) -> Report:
    """A report whose every text is this one."""
    found = (Finding(rule, RULES[rule].severity, text, text, text, {"Sid": text}) for rule in rules)
    return Report("1" * 12, text, datetime.now(UTC), tuple(found), (NotChecked(text, text),))


@given(st.one_of(st.just(EVIL), st.text()))
def test_whatever_a_resource_is_called_is_text(text: str) -> None:
    made = report(text, "role-unused")
    page = as_html(made)
    assert not re.search("<(script|img|a |link|iframe)|url\\(|@import|http-equiv=.refresh", page, re.IGNORECASE)
    assert "default-src 'none'" in page
    screen = SafeConsole()
    screen.file = io.StringIO()
    screen.print(table(made))
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


@pytest.mark.parametrize("worst", Severity)
@pytest.mark.parametrize("fail_on", Severity)
def test_the_exit_code_says_whether_there_is_something_as_bad(
    worst: Severity, fail_on: Severity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rule = next(rule for rule, its in RULES.items() if its.severity == worst)
    monkeypatch.setattr(command, "assess", lambda *_: report(EVIL, rule))
    identity = SimpleNamespace(get_caller_identity=lambda: {"Account": "1" * 12})
    monkeypatch.setattr(main, "Stage", lambda *_: FakeStage(sts=identity))
    page = tmp_path / "audit.html"
    arguments = ["audit", "--region", "r", "--format", "html", "--output", str(page), "--fail-on", fail_on]
    result = CliRunner().invoke(main.app, arguments)
    order = list(Severity)
    assert getattr(result.exception, "exit_code", 0) == (6 if order.index(worst) <= order.index(fail_on) else 0)
    assert RULES[rule].title[1:] in page.read_text(encoding="utf-8")
