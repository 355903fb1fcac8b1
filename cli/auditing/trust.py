"""Checks of who may assume the roles of an account."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from cli.auditing.account import Account
from cli.auditing.findings import Finding, found
from cli.auditing.identities import principals_of
from cli.auditing.statements import Statement, limited_by, principals, statements

#: Services that act for many accounts and say for which: their guides have these conditions in the trust policy of a
#: role ("confused deputy prevention"). EC2, Lambda and others say nothing; a condition locks them out.
_SHARED = re.compile(
    r"(bedrock|codebuild|fis|frauddetector|iot|personalize|sagemaker|scheduler|states)\.([\w-]+\.)?amazonaws\.com(\.cn)?"
)
_SOURCE = ("aws:sourceaccount", "aws:sourcearn", "aws:sourceorgid", "aws:sourceorgpaths")
_ORGANISATION = ("aws:principalorgid", "aws:principalorgpaths")
_CALLER = (*_SOURCE, *_ORGANISATION, "aws:principalaccount", "aws:principalarn")
_FIXES = {
    "trust-world": "Name the accounts or roles, or add the condition aws:PrincipalOrgID.",
    "trust-foreign-account": "Add the condition sts:ExternalId, with a secret that the other account knows.",
    "trust-confused-deputy": "Add the condition aws:SourceAccount with this account.",
    "trust-github": "Add StringLike token.actions.githubusercontent.com:sub = repo:OWNER/REPOSITORY:*.",
}
_GITHUB = "token.actions.githubusercontent.com"
_OWNER = r"\w+:[^*?/:]+([/:].*)?"  # `repo:owner/…`: the subject of a token names whose it is


def role_trust(account: Account) -> Iterator[Finding]:
    """Roles that the world, a foreign account, a confused deputy or any GitHub repository may assume."""
    for kind, role in principals_of(account):
        for statement in statements(role["AssumeRolePolicyDocument"]) if kind == "Role" else ():
            for rule, who in trust_flaws(statement, account.id) if statement["Effect"] == "Allow" else ():
                yield found(rule, role["Arn"], f"{who} in {json.dumps(statement)}", _FIXES[rule])


def trust_flaws(statement: Statement, own_account: str) -> Iterator[tuple[str, str]]:
    """Yield rules that a statement of a trust policy breaks, and by whom."""
    for who in sorted(principals(statement)):
        account = re.fullmatch(r"(?:arn:[^:]*:(?:iam|sts)::)?(\d{12}|\*)(?::.*)?", who)
        if account and account[1] == "*":
            if not limited_by(statement, *_CALLER):
                yield "trust-world", who
        elif account and account[1] != own_account:
            if not limited_by(statement, "sts:externalid", *_ORGANISATION):
                yield "trust-foreign-account", who
        elif _SHARED.fullmatch(who):
            if not limited_by(statement, *_SOURCE):
                yield "trust-confused-deputy", who
        elif who.endswith(_GITHUB) and not limited_by(statement, f"{_GITHUB}:sub", to=_OWNER):
            yield "trust-github", who
