"""Mapping templates: Velocity, by airspeed, with the variables that API Gateway documents.

Sources: API Gateway's Developer Guide, "Variables for data transformations for API Gateway", for the variables; Java's
String, List and Map for the methods of values.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from urllib.parse import quote_plus, unquote_plus

import airspeed

from emulator.evaluation.json_path import JsonPath

#: How often a loop of API Gateway runs at most, and how long a body is.
_MOST_ROUNDS, _LONGEST = 1000, 10 * 1024 * 1024


def _split(text: str, pattern: str) -> list[str]:
    parts = re.split(pattern, text)
    while len(parts) > 1 and not parts[-1]:  # Java leaves empty ones out at the end
        parts.pop()
    return parts


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
    "split": _split,
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


class _Block(airspeed.Block):  # type: ignore[misc]
    def evaluate_raw(self, stream: Any, namespace: Any, loader: Any) -> None:
        if namespace.get("velocityCount", 0) > _MOST_ROUNDS:
            raise ValueError(f"#foreach runs {_MOST_ROUNDS} times at most")
        super().evaluate_raw(stream, namespace, loader)


def _with_numbers(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Calculate with numbers only, where Python does with texts, too."""

    def calculate(left: Any, right: Any) -> Any:
        if not isinstance(left, int | float) or not isinstance(right, int | float):
            raise ValueError("This calculates with numbers only")
        return operate(left, right)

    return calculate


# airspeed looks up attributes of what is meant for templates only, and values have the methods of Java.
vars(airspeed).update(getattr=_attribute, str=_written, Block=_Block)
_operators = airspeed.BinaryOperator.OPERATORS
_operators.update({sign: _with_numbers(_operators[sign]) for sign in "-*/%"})
for _kind, _methods in ((str, _TEXT), (list, _LIST), (dict, _MAP)):
    airspeed.__additional_methods__.setdefault(_kind, {}).update(_methods)


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
) -> tuple[str, dict[str, Any]]:
    """Render a template; what it overrides comes with its text. `parameters` has path, querystring and header.

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
        text = str(airspeed.Template(template).merge(variables))
    except Exception as wrong:  # whatever a template does: airspeed lets errors of its values through
        if isinstance(wrong.__cause__, MemoryError):
            raise wrong.__cause__ from None
        raise ValueError(f"{type(wrong).__name__}: {wrong}") from None
    if len(text) > _LONGEST:
        raise ValueError(f"A body has {_LONGEST} characters at most.")
    return text, {name: value for name, value in context.items() if name.endswith("Override")}
