"""What a statement of a policy means: whom it lets in, and by which conditions it is limited.

The gate asks about statements of templates, `kennel audit` about those that AWS has. A value of a template that
CloudFormation chooses counts with all that it may become.
"""

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

DATA = tomllib.loads(Path(__file__).with_name("policies.toml").read_text(encoding="utf-8"))
PATTERNS = {name: re.compile(pattern, re.VERBOSE) for name, pattern in DATA["patterns"].items()}
_ALTERNATIVES = 1000  # of one text; with more they are looked at as one


def texts(value: Any) -> Iterator[str]:
    """Yield every text that a value may become, or holds; references in angle brackets, as cdk-nag writes them."""
    match value:
        case {"Fn::If": [_, *choices]} | {"Fn::Select": [_, *choices]}:
            yield from texts(choices)
        case {"Fn::Join": [str(separator), list(parts)]}:
            choices = [list(texts(part)) for part in parts]
            if math.prod(map(len, choices)) > _ALTERNATIVES:
                choices = [[separator.join(choice)] for choice in choices]
            yield from map(separator.join, product(*choices))
        case {"Fn::Split": [str(separator), whole]}:
            yield from (part for text in texts(whole) for part in text.split(separator))
        case {"Fn::GetAtt": [name, attribute]}:
            yield f"<{name}.{attribute}>"
        case {"Ref": name}:
            yield f"<{name}>"
        case dict() | list():
            for inner in value.values() if isinstance(value, dict) else value:
                yield from texts(inner)
        case _:
            yield str(value)


def lower_actions(statement: Mapping[str, Any]) -> set[str]:
    """Return the actions of a statement in lower case, as they are written."""
    return {action.lower() for action in texts(statement.get("Action", []))}


def conditions(statement: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return keys, in lower case, and values of the conditions that must hold, and that name what is allowed."""
    operators = statement.get("Condition", {}).items()
    naming = (keys for operator, keys in operators if PATTERNS["naming"].fullmatch(operator))
    return [(key.lower(), its) for keys in naming for key, values in keys.items() if (its := list(texts(values)))]


def narrows(statement: Mapping[str, Any]) -> bool:
    """Whether a condition leaves only some resources; most keys ask who calls, and how."""
    said = [key for key, values in conditions(statement) if not any(map(PATTERNS["any_value"].match, values))]
    return not all(map(PATTERNS["of_the_caller"].match, said))


def limits(statement: Mapping[str, Any]) -> set[str]:
    """Return the keys of conditions none of whose values leaves open whose it is."""
    return {key for key, values in conditions(statement) if not any(map(_is_open, values))}


def outsiders(statement: Mapping[str, Any], account: str | None) -> Iterator[tuple[str, str]]:
    """Yield how a statement lets somebody in who is not of an account, and whom; without an account any is foreign.

    `public`: anybody, whatever NotPrincipal leaves out. `provider`: anybody whom an identity provider knows.
    `foreign-account`: another account. `confused-deputy`: a service that acts for any account.
    """
    actions, whom = lower_actions(statement), "*" if "NotPrincipal" in statement else statement.get("Principal", [])
    if actions and actions <= {"sts:tagsession", "sts:setsourceidentity"}:
        return  # without the action that assumes the role they are nothing
    named, closed = conditions(statement), limits(statement)
    narrow = any(map(PATTERNS["source"].fullmatch, closed))
    claims = [values for key, values in named if PATTERNS["claim"].search(key)]
    sources = [("Source", text) for key, values in named if PATTERNS["source"].fullmatch(key) for text in values]
    in_trust = any(action.startswith("sts:") for action in actions)
    for kind, who in sorted({*_principals(whom), *sources}):
        if kind == "Service":
            shared = not in_trust or PATTERNS["shared_service"].match(who)
            # The context of an encryption is the ARN of what is encrypted.
            if shared and not narrow and not any("encryptioncontext" in key for key in closed):
                yield "confused-deputy", who
        elif kind == "Federated" and all(any(map(PATTERNS["any_identity"].match, values)) for values in claims):
            yield "provider", who
        elif kind != "Source" and "*" in who and not narrow:
            yield "public", who
        elif others(who, account) or PATTERNS["identity"].search(who):
            yield "foreign-account", who


def others(text: str, account: str | None) -> set[str]:
    """Return the accounts that a text (an ARN, an address, a number) names, other than one's own."""
    return {*PATTERNS["account"].findall(PATTERNS["owner"].sub(r"\1\2", text))} - {account}


def _principals(value: Any) -> Iterator[tuple[str, str]]:
    """Yield kinds and names of principals."""
    match value:
        case {"Fn::If": [_, *choices]}:
            for choice in choices:
                yield from _principals(choice)
        case dict() if not any(re.match("Ref|Fn::", kind) for kind in value):
            yield from ((kind, text) for kind, its in value.items() for text in texts(its))
        case _:
            yield from (("AWS", text) for text in texts(value))


def _is_open(value: str) -> bool:
    """Whether a value of a condition leaves open whose it is; what follows the account or a reference does not."""
    return bool(PATTERNS["open"].search(PATTERNS["owner"].sub(r"\1\2", value)))
