"""What an audit finds: findings, what could not be checked, and the report of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cli.auditing.account import Account
from cli.auditing.rules import RULES, Severity
from cli.errors import AwsError


@dataclass(frozen=True)
class Finding:
    """A flaw of one resource (its ARN). `evidence` is what was read, `fix` what to do, `policy` a document for it."""

    rule: str
    severity: Severity
    resource: str
    evidence: str
    fix: str
    policy: dict[str, Any] | None = None


@dataclass(frozen=True)
class NotChecked:
    """A check that could not be made, or not for every resource. It says nothing of the account."""

    check: str
    reason: str


#: A check yields what it finds. It may raise an AwsError: then the report says that it was not made.
Check = Callable[[Account], Iterable[Finding | NotChecked]]


@dataclass(frozen=True)
class Report:
    """The result of an audit, the worst findings first."""

    account: str
    region: str
    date: datetime
    findings: tuple[Finding, ...]
    not_checked: tuple[NotChecked, ...]


def found(rule: str, resource: str, evidence: str, fix: str = "", policy: dict[str, Any] | None = None) -> Finding:
    """Return a finding with the severity of its rule, and with the rule's fix if it has no other."""
    return Finding(rule, RULES[rule].severity, resource, evidence, fix or RULES[rule].fix, policy)


def name_of(check: Check) -> str:
    """Return the name of a check in a report: its function's, in words."""
    return check.__name__.replace("_", " ")


def examine(account: Account, checks: Iterable[Check]) -> Report:
    """Run checks. One that AWS does not let us make becomes a NotChecked."""
    results: list[Finding | NotChecked] = []
    for check in checks:
        try:
            results.extend(check(account))
        except AwsError as error:
            results.append(NotChecked(name_of(check), str(error)))
    worst = list(Severity)
    findings = [result for result in results if isinstance(result, Finding)]
    return Report(
        account.id,
        account.region,
        account.now,
        tuple(sorted(findings, key=lambda each: (worst.index(each.severity), each.rule, each.resource))),
        tuple(result for result in results if isinstance(result, NotChecked)),
    )
