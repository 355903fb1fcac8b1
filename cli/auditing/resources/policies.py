"""Who may use a resource or assume a role, by its own policy: anybody, another account, a service for any account."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator

from cli.auditing.account import Account
from cli.auditing.findings import Finding, found
from cli.auditing.rules import RULES
from cli.auditing.statements import Document, Statement, listed, statements
from infra.gate.statements import PATTERNS, limits, outsiders

#: Conditions by which another account is let in on purpose: it is of the organisation or, in the trust policy of a
#: role, knows a secret or has signed in with a second factor.
_AGREED = {"aws:principalorgid", "aws:principalorgpaths"}
_AGREED_IN_TRUST = {*_AGREED, "sts:externalid", "aws:multifactorauthpresent"}


def flaw(rule: str, arn: str, evidence: str, policy: Document | None = None, name: str = "") -> Finding:
    """Return a finding on a resource, with what its rule says to do; its name where the ARN has it in lower case."""
    region, its = arn.split(":", 5)[3::2]
    parts = {"id": name or re.sub(r"^[a-z-]+[:/]", "", its), "region": region, "arn": arn}
    fix = re.sub(r"\{(id|region|arn)\}", lambda part: shlex.quote(parts[part[1]]), RULES[rule].fix)
    return found(rule, arn, evidence, fix, policy)


def let_in(kind: str, statement: Statement, account: str) -> Iterator[tuple[str, str]]:
    """Yield whom a statement lets in from outside: the end of the rule that this breaks, and the principal."""
    agreed = limits(statement) & (_AGREED_IN_TRUST if kind == "trust" else _AGREED)
    for ending, who in outsiders(statement, account) if statement["Effect"] == "Allow" else ():
        # AWS shows the id of a principal (AIDA…, AROA…) only when it is gone; it lets nobody in.
        if ending != "foreign-account" or not (agreed or re.fullmatch("A[A-Z0-9]{15,}", who)):
            yield ending, "anybody" if who == "*" else who


def closed(statement: Statement, account: Account) -> Statement:
    """Return a statement for this account alone: a service gets a condition, its own principals replace others."""
    conditions: dict[str, dict[str, object]] = defaultdict(dict)
    for operator, compared in statement.get("Condition", {}).items():
        if kept := {key: value for key, value in compared.items() if not PATTERNS["source"].fullmatch(key.lower())}:
            conditions[operator] = kept
    principal = statement.get("Principal")
    if isinstance(principal, dict) and "Service" in principal:
        conditions["StringEquals"]["aws:SourceAccount"] = account.id
        principal = {"Service": principal["Service"]}
    else:
        principal = {"AWS": f"arn:{account.partition}:iam::{account.id}:root"}
    rest = {key: value for key, value in statement.items() if key not in ("NotPrincipal", "Condition")}
    return {**rest, "Principal": principal, **({"Condition": dict(conditions)} if conditions else {})}


def exposed(account: Account, kind: str, arn: str, document: Document) -> Iterator[Finding]:
    """Yield what is wrong with a resource's policy, with one in its place that keeps outsiders out."""
    evidence, fixed = defaultdict[str, list[str]](list), []
    for number, statement in enumerate(statements(document)):
        outside = list(let_in(kind, statement, account.id))
        fixed.append(closed(statement, account) if outside else statement)
        for ending, who in outside:
            actions = ", ".join(listed(statement.get("Action", "all but some actions")))
            evidence[ending].append(f"{who} may {actions} (statement {statement.get('Sid', number)})")
    for ending, lines in evidence.items():
        # Lambda takes no whole policies, and who else is to assume a role is for people to say.
        fix = None if kind in ("function", "trust") else document | {"Statement": fixed}
        yield flaw(f"{kind}-{ending}", arn, "; ".join(lines), fix)


def role_trust(account: Account) -> Iterator[Finding]:
    """Roles that the world, a foreign account, a confused deputy or anybody with an identity provider may assume."""
    for role in account.authorization["RoleDetailList"]:
        yield from exposed(account, "trust", role["Arn"], role["AssumeRolePolicyDocument"])
