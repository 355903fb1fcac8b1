"""What the statements of a policy document mean: actions, resources, principals, conditions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

Statement = dict[str, Any]
Document = dict[str, Any]


def listed(value: Any) -> list[Any]:
    """Return a list: policies may say `"x"` in place of `["x"]`."""
    return value if isinstance(value, list) else [] if value is None else [value]


def statements(document: Document) -> list[Statement]:
    """Return all statements of a document, whether it holds one or a list."""
    return listed(document.get("Statement"))


def principals(statement: Statement) -> set[str]:
    """Return who a statement is about: ARNs, accounts, services, providers; `*` is everybody."""
    named = statement.get("Principal", {})
    return {str(one) for each in (named.values() if isinstance(named, dict) else [named]) for one in listed(each)}


def limited_by(statement: Statement, *keys: str, to: str = ".*[^*?:/].*") -> bool:
    """Whether a condition compares one of these keys (in lower case) with values that all match `to`, not just `*`.

    Operators that deny (`StringNotEquals`), or pass when the key is absent (`…IfExists`, `Null`), limit nothing.
    """
    return any(
        key.lower() in keys and all(re.fullmatch(to, str(value)) for value in listed(values))
        for operator, compared in statement.get("Condition", {}).items()
        if not re.search("not|ifexists|null|forallvalues", operator, re.IGNORECASE)
        for key, values in compared.items()
    )


def broad_actions(statement: Statement) -> frozenset[str]:
    """Return the actions that a statement is about on every resource, by any spelling, or on all but `NotResource`.

    With `arn:aws:s3:::*` they are those of S3.
    """
    if "NotResource" in statement:
        return frozenset() if any(map(_any_resource, listed(statement["NotResource"]))) else actions(statement)
    broad = filter(_any_resource, listed(statement.get("Resource")))
    services = {[*arn.lower().split(":"), "*", "*"][2] for arn in broad}
    anything = "*" in "".join(services)
    meant = actions(statement) if services else ()
    return frozenset(action for action in meant if anything or action.partition(":")[0] in services)


def _any_resource(pattern: str) -> bool:
    """`*`, `arn:aws:s3*`, `arn:aws:s3:::*`, `arn:aws:s3:::*/*`: nothing of the resource's name is given."""
    *fields, name = pattern.split(":", 5)
    return bool(re.fullmatch(r"[*?/:]*\*[*?/:]*", name)) or (len(fields) < 5 and name.endswith("*"))


def actions(statement: Statement) -> frozenset[str]:
    """Return the actions of a statement in lower case, wildcards and `NotAction` written out."""
    if "NotAction" in statement:
        return every_action() - _matching(statement["NotAction"])
    return _matching(statement.get("Action"))


def _matching(patterns: Any) -> frozenset[str]:
    return frozenset[str]().union(*(_expanded(pattern.lower()) for pattern in listed(patterns)))


@lru_cache(maxsize=4096)
def _expanded(pattern: str) -> Iterable[str]:
    if not set(pattern) & {"*", "?"}:
        return frozenset([pattern])
    expression = re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."))
    return frozenset(filter(expression.fullmatch, every_action()))


@lru_cache(maxsize=1)
def every_action() -> frozenset[str]:
    """All actions of AWS that policy-sentry knows, in lower case."""
    return frozenset(spellings())


@lru_cache(maxsize=1)
def spellings() -> dict[str, str]:
    """Return every action of AWS that policy-sentry knows, in lower case, with AWS's spelling."""
    from policy_sentry.querying.all import get_all_actions  # on first use: it reads 13 MB

    return {action.lower(): action for action in get_all_actions()}
