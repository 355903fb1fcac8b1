"""CloudFormation's properties as the members of an API request."""

from __future__ import annotations

from typing import Any

from botocore.model import Shape

_TRUTH = {"true": True, "false": False}


def coerce(value: Any, shape: Shape, path: str = "#") -> Any:
    """Give a property the type that the API wants.

    Templates carry numbers and booleans as strings as often as not, and CloudFormation converts them either way.

    Parameters
    ----------
    value
        Property of a template, resolved.
    shape
        botocore's description of the request member.
    path
        Where the value is, for messages.

    Raises
    ------
    ValueError
        A property that the type does not have, or a value that does not convert; worded as CloudFormation's.
    """
    kind = shape.type_name
    if kind in ("structure", "map"):
        _expect(value, dict, path, "JSONObject")
    if kind == "structure":
        unknown = sorted(set(value) - set(shape.members))
        if unknown:
            raise ValueError(f"Properties validation failed: {path}: extraneous key [{unknown[0]}] is not permitted")
        members = ((key, item) for key, item in value.items() if item is not None)
        return {key: coerce(item, shape.members[key], f"{path}/{key}") for key, item in members}
    if kind == "list":
        _expect(value, list, path, "JSONArray")
        return [coerce(item, shape.member, f"{path}/{index}") for index, item in enumerate(value)]
    if kind == "map":
        return {key: coerce(item, shape.value, f"{path}/{key}") for key, item in value.items()}
    return _scalar(value, kind, path)


def _scalar(value: Any, kind: str, path: str) -> Any:
    try:
        if kind == "boolean":
            return value if isinstance(value, bool) else _TRUTH[str(value).lower()]
        if isinstance(value, bool):
            value = str(value).lower()
        if kind in ("integer", "long"):
            return int(value)
        if kind in ("float", "double"):
            return float(value)
        if kind == "string" and isinstance(value, (str, int, float)):
            return str(value)
        if kind != "string":
            return value
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(f"Properties validation failed: {path}: expected type: {kind}, found: {value!r}")


def _expect(value: Any, kind: type, path: str, name: str) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"Properties validation failed: {path}: expected type: {name}, found: {value!r}")
