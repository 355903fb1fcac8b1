"""All rules of the audit: one table for the findings, SARIF and the documentation."""

from __future__ import annotations

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


class Severity(StrEnum):
    """How bad a finding is, the worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Rule(NamedTuple):
    """What a rule looks for, and what to do about it where that is always the same."""

    severity: Severity
    title: str
    fix: str


_TABLE = tomllib.loads(Path(__file__).with_name("rules.toml").read_text(encoding="utf-8"))
RULES = {rule: Rule(Severity(row["severity"]), row["title"], row.get("fix", "")) for rule, row in _TABLE.items()}
