"""Requests checked against botocore's service model, with the errors that AWS gives, and against what is here.

``members/<service>.toml`` says of every member of every request what becomes of it: nothing is accepted without a word.
"""

from __future__ import annotations

import functools
import json
import operator
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from emulator.platform.errors import ServiceError, refuse

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "structure": ((dict,), "a structure or map"),
    "map": ((dict,), "a structure or map"),
    "list": ((list,), "a list"),
    "string": ((str,), "a String"),
    "blob": ((str,), "a String"),
    "integer": ((int,), "an Integer"),
    "long": ((int,), "a Long"),
    "float": ((int, float), "a Float"),
    "double": ((int, float), "a Double"),
    "boolean": ((bool,), "a Boolean"),
    "timestamp": ((int, float), "a Timestamp"),
}
#: What AWS's models, whose patterns are Java's, write in a way that Python does not know, and how Python has it. No
#: pattern has Print among other characters, and all that have L have N and the underscore as well.
_JAVA = {
    r"\uD800\uDC00-\uDBFF\uDFFF": "\U00010000-\U0010ffff",
    r"[\p{Print}]": r"[\x20-\x7E]",
    r"\p{Print}": r"[\x20-\x7E]",
    r"\z": r"\Z",
    r"\p{Alnum}": "a-zA-Z0-9",
    r"\p{L}": r"\w",
    r"\p{N}": r"\d",
    r"\p{Z}": r" \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
}


def validate(payload: Any, shape: Shape, whole: bool = True) -> None:
    """Check a request against the input shape of its operation; when not `whole`, only the members that are given.

    SerializationException is for the first value of a wrong type, ValidationException for all other problems at once.
    """
    named = [] if whole else [(name, shape.members[name]) for name in payload if name in shape.members]
    parts = [(payload, shape, "")] if whole else [(payload[name], of, _join("", name)) for name, of in named]
    if problems := [problem for part in parts if part[0] is not None for problem in _problems(*part)]:
        count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''} detected"
        raise ServiceError("ValidationException", f"{count}: {'; '.join(problems)}")


@dataclass(frozen=True)
class Fate:
    """What becomes of a member: it acts, is recorded, refused but for some values, or has no_effect, and why."""

    kind: str
    text: str = ""
    but: tuple[Any, ...] = ()


@functools.cache
def fates(service: str) -> dict[str, list[tuple[str, Fate]]]:
    """Read what becomes of the members of a service's requests, by section: a shape, or operations with ``*``."""
    table = Path(__file__).with_name("members") / f"{service}.toml"
    sections = tomllib.loads(table.read_text()) if table.is_file() else {}
    found: dict[str, list[tuple[str, Fate]]] = {}
    for name, section in sections.items():
        listed = [(kind, section.get(kind, ""), "") for kind in ("acts", "recorded")]
        listed += [(kind, *line) for kind in ("refused", "no_effect") for line in section.get(kind, {}).items()]
        found[name] = [
            (member, Fate(kind, said["do"], tuple(said["but"])) if isinstance(said, Mapping) else Fate(kind, said))
            for kind, members, said in listed
            for member in members.split()
        ]
    return found


def said_in_words(service: str) -> dict[str, dict[str, Any]]:
    """Read the limits of a service's shapes that its model has in words only."""
    limits: dict[str, dict[str, dict[str, Any]]] = tomllib.loads(Path(__file__).with_name("limits.toml").read_text())
    return limits.get(service, {})


@functools.cache
def section(service: str, operation: str, shape: str = "") -> dict[str, Fate]:
    """Give the members of a structure, or without one, of an operation's request, and what becomes of them."""
    names = [name for name in fates(service) if name == shape or (not shape and fnmatchcase(operation, name))]
    names.sort(key=operation.__eq__)  # an operation's own section counts more than patterns
    return {member: fate for name in names for member, fate in fates(service)[name]}


def in_headers(shape: StructureShape, headers: Mapping[str, str]) -> dict[str, str]:
    """Give the members of a request that came as headers, whose names are in lower case."""
    named = {
        name: of.serialization for name, of in shape.members.items() if of.serialization.get("location") == "header"
    }
    return {name: headers[way["name"].lower()] for name, way in named.items() if way["name"].lower() in headers}


def refused_members(service: str, operation: str, request: Any, shape: Shape, path: str = "") -> Iterator[str]:
    """Say of every member of a valid request that is not here, what is and what to do."""
    if isinstance(shape, ListShape):
        for item in request:
            yield from refused_members(service, operation, item, shape.member, f"{path}[]")
    if not isinstance(shape, StructureShape):
        return
    here = section(service, operation, shape.name if path else "")
    for name, value in request.items():
        where, fate = f"{path}.{name}".lstrip("."), here.get(name, Fate("acts"))
        if value is None or value == [] or value in fate.but:
            continue
        if fate.kind == "refused":
            only = f" {_show(value)}, only {' or '.join(map(_show, fate.but))}" if fate.but else ""
            yield f"The local AWS has no {where}{only}: {fate.text}."
        elif fate.kind == "acts" and name in shape.members and not isinstance(value, str):
            yield from refused_members(service, operation, value, shape.members[name], where)


def check_tags(request: Mapping[str, Any], by_aws: bool) -> None:
    """Refuse tag keys that are given twice, or are for services of AWS (`by_aws`) only."""
    tags = request.get("Tags") or []
    keys = [tag["Key"] for tag in tags] if isinstance(tags, list) else list(tags)
    refuse(len(set(keys)) < len(keys), f"Tag keys must be unique: {', '.join(keys)}.")
    for key in (*keys, *request.get("TagKeys", ())):
        reserved = key.lower().startswith("aws:") and not by_aws
        refuse(reserved, f"System prefix 'aws:' reserved for AWS usage in tag key: {key}")


def _problems(value: Any, shape: Shape, path: str) -> Iterator[str]:
    accepted, name = _TYPES[shape.type_name]
    true_for_1 = isinstance(value, bool) and bool not in accepted  # JSON's true is an int to Python
    if true_for_1 or not issubclass(type(value), accepted):
        where = f" at '{path}'" if path else ""
        raise ServiceError("SerializationException", f"Expected {name}{where}, got {_show(value)}.")
    if shape.type_name in ("integer", "long", "float", "double"):
        yield from _range_problems(value, value, shape, path, "value")
    elif shape.type_name in ("list", "map", "string", "blob"):
        length = len(value) * 3 // 4 - value[-2:].count("=") if shape.type_name == "blob" else len(value)
        yield from _range_problems(value, length, shape, path, "length")
    if isinstance(shape, StructureShape):
        yield from _structure_problems(value, shape, path)
    elif isinstance(shape, ListShape):
        for number, item in enumerate(value, start=1):
            yield from _problems(item, shape.member, f"{path}.{number}.member")
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            yield from _problems(key, shape.key, f"{path}.{key}.key")
            yield from _problems(item, shape.value, f"{path}.{key}.member")
    elif shape.type_name in ("string", "blob"):
        yield from _string_problems(value, shape, path)


def _structure_problems(value: dict[str, Any], shape: StructureShape, path: str) -> Iterator[str]:
    for name in shape.metadata.get("required", []):
        if value.get(name) is None:
            yield f"Value null at '{_join(path, name)}' failed to satisfy constraint: Member must not be null"
    for name, item in value.items():
        if name not in shape.members:
            allowed = ", ".join(sorted(shape.members))
            yield f"Unknown parameter '{_join(path, name)}': must be one of: {allowed}"
        elif item is not None:
            yield from _problems(item, shape.members[name], _join(path, name))


def _range_problems(value: Any, measure: float, shape: Shape, path: str, what: str) -> Iterator[str]:
    for bound, words, holds in (("min", "greater", operator.ge), ("max", "less", operator.le)):
        limit = shape.metadata.get(bound)
        if limit is not None and not holds(measure, limit):  # as for NaN
            yield _violation(value, path, f"Member must have {what} {words} than or equal to {limit}")


def _string_problems(value: str, shape: Shape, path: str) -> Iterator[str]:
    values = shape.metadata.get("enum")
    if values and value not in values:
        yield _violation(value, path, f"Member must satisfy enum value set: [{', '.join(values)}]")
    pattern = shape.metadata.get("pattern")
    expression = compile_pattern(pattern) if pattern else None
    if expression and not expression.fullmatch(value):
        yield _violation(value, path, f"Member must satisfy regular expression pattern: {pattern}")


def _violation(value: Any, path: str, constraint: str) -> str:
    return f"Value {_show(value)} at '{path}' failed to satisfy constraint: {constraint}"


def _show(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else f"'{json.dumps(value)}'"


def _join(path: str, name: str) -> str:
    """AWS writes members with a small first letter: ``primaryContainer.image``."""
    name = name[:1].lower() + name[1:]
    return f"{path}.{name}" if path else name


@functools.cache
def compile_pattern(pattern: str) -> re.Pattern[str] | None:
    """Compile a pattern of AWS's models; None for one that is broken in the model, or has a class that is not known."""
    for java, python in _JAVA.items():
        pattern = pattern.replace(java, python)
    try:
        return re.compile(pattern)
    except re.error:
        return None
