"""Mapping templates: Velocity, by airspeed, with the variables that API Gateway documents.

Sources: API Gateway's Developer Guide, "Variables for data transformations for API Gateway", for the variables; Java's
String, List and Map for the methods of values.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote_plus, unquote_plus

import airspeed

from emulator.sagemaker.transform.json_path import JsonPath

#: How often a loop of API Gateway runs at most.
_MOST_ROUNDS = 1000
_TEXT = {
    "contains": lambda text, part: part in text,
    "endsWith": str.endswith,
    "equals": lambda text, other: text == other,
    "indexOf": str.find,
    "isEmpty": lambda text: not text,
    "length": len,
    "matches": lambda text, pattern: re.fullmatch(pattern, text) is not None,
    "replace": str.replace,
    "replaceAll": lambda text, pattern, by: re.sub(pattern, by, text),
    "split": lambda text, pattern: _split(text, pattern),
    "startsWith": str.startswith,
    "substring": lambda text, start, end=None: text[start:end],
    "toLowerCase": str.lower,
    "toString": str,
    "toUpperCase": str.upper,
    "trim": str.strip,
}
_LIST = {"isEmpty": lambda items: not items}
_MAP = {
    "containsKey": lambda items, key: key in items,
    "entrySet": lambda items: [{"key": key, "value": value} for key, value in items.items()],
    "get": dict.get,
    "size": len,
    "values": lambda items: [*items.values()],
}


def _split(text: str, pattern: str) -> list[str]:
    parts = re.split(pattern, text)
    while len(parts) > 1 and not parts[-1]:  # Java leaves empty ones out at the end
        parts.pop()
    return parts


class _Variable:
    """A variable with methods. Of Python, a template reaches nothing else: neither attributes nor other methods."""

    methods: ClassVar[frozenset[str]]


class _Input(_Variable):
    methods = frozenset({"body", "json", "params", "path"})

    def __init__(self, body: str, parameters: Mapping[str, Mapping[str, str]]) -> None:
        self.body = body
        self._parameters = {kind: dict(values) for kind, values in parameters.items()}

    def path(self, expression: str) -> Any:
        try:
            found = JsonPath(expression).select(json.loads(self.body or "{}"))
        except ValueError:
            return ""
        return "" if found is None else found

    def json(self, expression: str) -> str:
        found = self.path(expression)
        return found if found == "" else json.dumps(found, ensure_ascii=False, separators=(",", ":"))

    def params(self, name: str | None = None) -> Any:
        if name is None:
            return self._parameters
        of_kinds = (self._parameters[kind] for kind in ("path", "querystring", "header"))
        folded = ({**values, **{key.lower(): value for key, value in values.items()}} for values in of_kinds)
        return next((values[key] for values in folded for key in (name, name.lower()) if key in values), "")


class _Util(_Variable):
    methods = frozenset({"base64Decode", "base64Encode", "escapeJavaScript", "parseJson", "urlDecode", "urlEncode"})

    base64Decode = staticmethod(lambda text: base64.b64decode(text).decode("utf-8", "replace"))
    base64Encode = staticmethod(lambda text: base64.b64encode(str(text).encode()).decode())
    escapeJavaScript = staticmethod(lambda text: json.dumps(str(text))[1:-1].replace("'", "\\'").replace("/", "\\/"))
    parseJson = staticmethod(json.loads)
    urlDecode = staticmethod(unquote_plus)
    urlEncode = staticmethod(quote_plus)


def _attribute(thing: Any, name: str) -> Any:
    if isinstance(thing, _Variable) and name in thing.methods:
        return getattr(thing, name)
    raise AttributeError(name)


def _written(value: Any) -> str:
    """Write a value as Java does: a map's members with =, a list as JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written_in_list, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _written_in_list(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _written(value)


class _Range(airspeed.Range):  # type: ignore[misc]
    def calculate(self, namespace: Any, loader: Any) -> Any:
        numbers = super().calculate(namespace, loader)
        if len(numbers) > _MOST_ROUNDS:
            raise ValueError(f"#foreach runs {_MOST_ROUNDS} times at most")
        return numbers


def install() -> None:
    """Have airspeed look up attributes of what is meant for templates only, and give values the methods of Java."""
    vars(airspeed).update(getattr=_attribute, str=_written, Range=_Range)
    for kind, methods in ((str, _TEXT), (list, _LIST), (dict, _MAP)):
        airspeed.__additional_methods__.setdefault(kind, {}).update(methods)


def check(template: str) -> None:
    """Raise a ValueError with the place for what is no template."""
    try:
        airspeed.Template(template).ensure_compiled()
    except airspeed.TemplateError as wrong:
        raise ValueError(f"Invalid mapping template: {wrong}") from None


def render(
    template: str,
    body: str,
    parameters: Mapping[str, Mapping[str, str]],
    context: dict[str, Any],
    stage_variables: Mapping[str, str],
) -> str:
    """Render a template. `parameters` has path, querystring and header; overrides are left in `context`.

    Any error of a template is a ValueError.
    """
    variables = {
        "input": _Input(body, parameters),
        "util": _Util(),
        "context": context,
        "stageVariables": dict(stage_variables),
        "esc": {"newline": "\n"},
    }
    try:
        return str(airspeed.Template(template).merge(variables))
    except Exception as wrong:  # whatever a template does: airspeed lets errors of its values through
        raise ValueError(f"{type(wrong).__name__}: {wrong}") from None
