"""Who may use a resource by its own policy: anybody, another account, or a service on behalf of any account."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator

from cli.auditing.account import Account
from cli.auditing.findings import Finding, found
from cli.auditing.rules import RULES
from cli.auditing.statements import Document, Statement, limited_by, listed, principals, statements

# With these a policy is not public (S3 user guide, "The meaning of public"), nor with their like of other services.
_ACCOUNTS = (
    *("aws:sourceaccount", "aws:sourceowner", "aws:sourcearn", "aws:principalaccount", "aws:principalarn"),
    *("kms:calleraccount", "s3:dataaccesspointaccount", "s3:dataaccesspointarn"),
)
_GROUPS = ("aws:principalorgid", "aws:principalorgpaths", "aws:sourceorgid", "aws:sourcevpc", "aws:sourcevpce")
_ANY_ACCOUNT = r"(.*[:/])?\d{12}([:/].*)?|arn:[^:]*:s3:::[^*?]+.*"  # an ARN of a bucket has no account
_NETWORK = r".*/(?!0$)\d+|[^/]+"


def flaw(rule: str, arn: str, evidence: str, policy: Document | None = None, name: str = "") -> Finding:
    """Return a finding on a resource, with what its rule says to do; its name where the ARN has it in lower case."""
    region, its = arn.split(":", 5)[3::2]
    parts = {"id": name or re.sub(r"^[a-z-]+[:/]", "", its), "region": region, "arn": arn}
    fix = re.sub(r"\{(id|region|arn)\}", lambda part: shlex.quote(parts[part[1]]), RULES[rule].fix)
    return found(rule, arn, evidence, fix, policy)


def outsiders(statement: Statement, account: str) -> Iterator[tuple[str, str]]:
    """Yield whom a statement lets in from outside: the end of the rule that this breaks, and the principal."""
    named = limited_by(statement, *_ACCOUNTS, to=_ANY_ACCOUNT)
    foreign = named and not limited_by(statement, *_ACCOUNTS, to=rf"(?!.*\b(?!{account})\d{{12}}\b).*")
    limited = named or limited_by(statement, *_GROUPS) or limited_by(statement, "aws:sourceip", to=_NETWORK)
    if statement["Effect"] == "Allow":
        for who in sorted(principals(statement)) or ["*"]:  # NotPrincipal: everybody else
            service = who.endswith((".amazonaws.com", ".amazonaws.com.cn"))
            # The id of a principal of this account that is gone (AIDA…, AROA…) lets nobody in.
            own = re.fullmatch(rf"(arn:[^:]*:(iam|sts)::)?{account}(:.*)?|A[A-Z0-9]{{15,}}", who)
            if (service or who == "*") and not limited:
                yield ("confused-deputy", who) if service else ("public", "anybody")
            elif not own and (foreign or not limited):
                yield "foreign-account", who


def closed(statement: Statement, account: Account) -> Statement:
    """Return a statement for this account alone: a service gets a condition, its own principals replace others."""
    if "amazonaws.com" in str(statement.get("Principal")):
        condition = statement.get("Condition", {})
        others = {key: value for key, value in condition.get("StringEquals", {}).items() if key.lower() != _ACCOUNTS[0]}
        return statement | {"Condition": {**condition, "StringEquals": {**others, "aws:SourceAccount": account.id}}}
    kept = {key: value for key, value in statement.items() if key != "NotPrincipal"}
    return kept | {"Principal": {"AWS": f"arn:{account.partition}:iam::{account.id}:root"}}


def exposed(account: Account, kind: str, arn: str, policy: str | None) -> Iterator[Finding]:
    """Yield what is wrong with a resource's policy, with one in its place that keeps outsiders out."""
    document = json.loads(policy or "{}")
    evidence, fixed = defaultdict[str, list[str]](list), []
    for number, statement in enumerate(statements(document)):
        let_in = list(outsiders(statement, account.id))
        fixed.append(closed(statement, account) if let_in else statement)
        for ending, who in let_in:
            actions = ", ".join(listed(statement.get("Action", "all but some actions")))
            evidence[ending].append(f"{who} may {actions} (statement {statement.get('Sid', number)})")
    for ending, lines in evidence.items():
        fix = document | {"Statement": fixed} if kind != "function" else None  # Lambda takes no whole policies
        yield flaw(f"{kind}-{ending}", arn, "; ".join(lines), fix)
