"""Checks of who may assume the roles of an account."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from cli.auditing.account import Account
from cli.auditing.findings import Finding, found
from cli.auditing.rules import RULES
from cli.auditing.statements import Statement, actions, limited_by, principals, statements

#: Services that act for many accounts and say for which: their guides have these conditions in the trust policy of a
#: role ("confused deputy prevention"). EC2, Lambda and others say nothing; a condition locks them out.
_SHARED = re.compile(
    r"(bedrock|codebuild|fis|frauddetector|iot|personalize|sagemaker|scheduler|states)\.([\w-]+\.)?amazonaws\.com(\.cn)?"
)
_SOURCE = ("aws:sourceaccount", "aws:sourcearn", "aws:sourceorgid", "aws:sourceorgpaths")
_GROUPS = (*_SOURCE, "aws:principalorgid", "aws:principalorgpaths")
_CALLER = ("aws:principalaccount", "aws:principalarn")  # with wildcards for the account they limit nothing
_GITHUB = "token.actions.githubusercontent.com"
_OWNER = r"\w+:[^*?/:]+([/:].*)?"  # `repo:owner/…`: the subject of a token names whose it is


def role_trust(account: Account) -> Iterator[Finding]:
    """Roles that the world, a foreign account, a confused deputy or any GitHub repository may assume."""
    for role in account.authorization["RoleDetailList"]:
        for statement in statements(role["AssumeRolePolicyDocument"]):
            for rule, who in trust_flaws(statement, account.id):
                yield found(rule, role["Arn"], f"{who} in {json.dumps(statement)}", RULES[rule].fix)


def trust_flaws(statement: Statement, own_account: str) -> Iterator[tuple[str, str]]:
    """Yield rules that a statement of a trust policy breaks, and by whom; not when it only allows to tag sessions."""
    assumes = any(action.startswith("sts:assumerole") for action in actions(statement))
    for who in sorted(principals(statement)) if assumes and statement["Effect"] == "Allow" else ():
        account = re.fullmatch(r"(?:arn:[^:]*:(?:iam|sts)::)?(\d{12}|\*)(?::.*)?", who)
        if account and account[1] == "*":
            if not (limited_by(statement, *_GROUPS) or limited_by(statement, *_CALLER, to=r".*\d{12}.*")):
                yield "trust-world", who
        elif account and account[1] != own_account:
            if not limited_by(statement, "sts:externalid", "aws:multifactorauthpresent", *_GROUPS):
                yield "trust-foreign-account", who
        elif _SHARED.fullmatch(who):
            if not limited_by(statement, *_SOURCE):
                yield "trust-confused-deputy", who
        elif who.endswith(_GITHUB) and not limited_by(statement, f"{_GITHUB}:sub", to=_OWNER):
            yield "trust-github", who
