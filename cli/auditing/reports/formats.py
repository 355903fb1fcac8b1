"""The report of an audit as a table, JSON, SARIF and a page. Names in it may be hostile: everywhere they are text."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import RenderableType
from rich.text import Text

from cli.auditing.findings import Finding, Report
from cli.auditing.rules import RULES, Severity
from cli.console import plain

_STYLES = {"critical": "bold white on red", "high": "bold red", "medium": "yellow", "low": "dim"}
#: What SARIF calls them, and the scores by which GitHub names them again (SARIF support for code scanning).
_LEVELS = {"critical": ("error", "9.5"), "high": ("error", "8.0"), "medium": ("warning", "5.0"), "low": ("note", "2.0")}


def as_table(report: Report) -> Text:
    """Return the findings, the worst first, and what was not checked; each command in one line, to be copied."""
    made = Text()
    for each in report.findings:
        made.append(each.severity.ljust(10), _STYLES[each.severity]).append(each.rule.ljust(34), "bold")
        more = ["policy.json: kennel audit --format html"] if each.policy else []
        lines = [each.resource, each.evidence, f"fix: {each.fix}", *more]
        made.append("\n  ".join(line.replace("\n", "\\n") for line in lines) + "\n\n")
    lines = [f"not checked: {each}" for each in report.not_checked]
    return made.append("\n".join(line.replace("\n", "\\n") for line in lines))


def as_json(report: Report) -> str:
    """Return everything as one JSON document."""
    return json.dumps(asdict(report), default=str)


def as_sarif(report: Report) -> str:
    """Return SARIF 2.1.0, as GitHub's code scanning and others read it."""
    ids = sorted({each.rule for each in report.findings})
    rules = [
        {
            "id": rule,
            "shortDescription": {"text": f"The audit found {RULES[rule].title}."},
            "defaultConfiguration": {"level": _LEVELS[RULES[rule].severity][0]},
            "properties": {"security-severity": _LEVELS[RULES[rule].severity][1], "tags": ["security"]},
        }
        for rule in ids
    ]
    skipped = [{"message": _message(f"Not checked: {each}")} for each in report.not_checked]
    run = {
        "tool": {"driver": {"name": "kennel audit", "version": version("kennel"), "rules": rules}},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": skipped}],
        "results": [_result(each, ids.index(each.rule)) for each in report.findings],
    }
    schema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]})


def _message(text: str) -> dict[str, str]:
    """Return a message whose text makes no link (SARIF 2.1.0, 3.11.6)."""
    return {"text": plain(text).replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")}


def _result(finding: Finding, index: int) -> dict[str, Any]:
    # GitHub wants a file in every location; as a relative one, it takes whatever a resource is called.
    fingerprint = hashlib.sha256(ascii(f"{finding.rule} {finding.resource}").encode()).hexdigest()
    location = {
        "artifactLocation": {"uri": quote(finding.resource.replace(":", "/"), errors="replace")},
        "region": {"startLine": 1},
    }
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity][0],
        "message": _message(f"{finding.resource}: {finding.evidence}. Fix: {finding.fix}"),
        "locations": [{"physicalLocation": location, "logicalLocations": [{"fullyQualifiedName": finding.resource}]}],
        "partialFingerprints": {"primaryLocationLineHash": fingerprint},  # GitHub knows no other
        "properties": {"severity": finding.severity, "policy": finding.policy},
    }


def as_html(report: Report) -> str:
    """Return a page that loads nothing and runs nothing."""
    import jinja2  # on first use: it costs 0.1 s

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {"plain": plain, "indented": lambda policy: json.dumps(policy, indent=2)}
    counts, page = Counter(each.severity for each in report.findings), environment.get_template("page.html.jinja")
    made = page.render(report=report, severities=list(Severity), counts=counts, rules=RULES)
    return made.encode("ascii", "xmlcharrefreplace").decode()  # whatever the shell's encoding is


FORMATS: dict[str, Callable[[Report], RenderableType]]
FORMATS = {"table": as_table, "json": as_json, "sarif": as_sarif, "html": as_html}
