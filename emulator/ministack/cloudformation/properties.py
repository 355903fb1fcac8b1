"""CloudFormation's properties as the members of an API request."""

from __future__ import annotations

from typing import Any

from botocore.model import Shape

_TRUTH = {"true": True, "false": False}
_CONTAINERS = {"structure": (dict, "JSONObject"), "map": (dict, "JSONObject"), "list": (list, "JSONArray")}


def coerce(value: Any, shape: Shape, path: str = "#") -> Any:
    """Give a property the type that the API wants, as CloudFormation does with numbers and booleans that are strings.

    Raises
    ------
    ValueError
        A property that the type does not have, or a value that does not convert; worded as CloudFormation's.
    """
    kind = shape.type_name
    if kind not in _CONTAINERS:
        return _scalar(value, kind, path)
    python_type, name = _CONTAINERS[kind]
    if not isinstance(value, python_type):
        raise ValueError(f"Properties validation failed: {path}: expected type: {name}, found: {value!r}")
    if kind == "list":
        return [coerce(item, shape.member, f"{path}/{index}") for index, item in enumerate(value)]
    if kind == "map":
        return {key: coerce(item, shape.value, f"{path}/{key}") for key, item in value.items()}
    if unknown := sorted(set(value) - set(shape.members)):
        raise ValueError(f"Properties validation failed: {path}: extraneous key [{unknown[0]}] is not permitted")
    members = ((key, item) for key, item in value.items() if item is not None)
    return {key: coerce(item, shape.members[key], f"{path}/{key}") for key, item in members}


def _scalar(value: Any, kind: str, path: str) -> Any:
    try:
        if kind == "boolean":
            return _TRUTH[str(value).lower()]
        if isinstance(value, bool):
            value = str(value).lower()
        if kind in ("integer", "long"):
            return int(value)
        if kind in ("float", "double"):
            return float(value)
        if kind != "string":
            return value
        if isinstance(value, (str, int, float)):
            return str(value)
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(f"Properties validation failed: {path}: expected type: {kind}, found: {value!r}")
