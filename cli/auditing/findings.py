"""What an audit finds: findings, what could not be checked, and the report of both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
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
    """A check that could not be made, or not of the resources or regions `where`. It says nothing of the account."""

    check: str
    reason: str  # begins with the right that is needed, where AWS refused
    where: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return all in one line; of many resources, the first ones."""
        more = len(self.where) - 5
        some = f" ({', '.join(self.where[:5])}{f' and {more:,} more' * (more > 0)})" * bool(self.where)
        return f"{self.check}{some}: {self.reason}"


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


def folded(skipped: Iterable[NotChecked]) -> Iterator[NotChecked]:
    """Yield in one what has the same check, right and code of AWS: the words between may tell of the resource."""
    groups = defaultdict[tuple[str, ...], list[NotChecked]](list)
    for each in skipped:
        groups[each.check, each.reason.partition(": ")[0], each.reason.rpartition("(")[2]].append(each)
    for its in groups.values():
        yield replace(its[0], where=tuple(dict.fromkeys(place for each in its for place in each.where)))


def name_of(check: Check) -> str:
    """Return the name of a check in a report: its function's, in words."""
    return check.__name__.replace("_", " ")


def attempt(account: Account, check: Check) -> Iterator[Finding | NotChecked]:
    """Yield what a check finds in the account's region, until AWS does not let it go on."""
    region = [account.other_region] if account.other_region else []
    try:
        for each in check(account):
            if isinstance(each, NotChecked) and region:
                each = replace(each, where=(*(f"{place} in {region[0]}" for place in each.where),) or (*region,))
            yield each
    except AwsError as error:
        yield NotChecked(name_of(check), str(error), (*region,))
