"""Hold properties of templates to the schemas of CloudFormation's registry, and give them the types that these say."""

from __future__ import annotations

import contextlib
import functools
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Stands for what is known only when the stack makes what it refers to; no template can hold it.
UNKNOWN = "\x00"

_TABLE = Path(__file__).with_name("schemas.json.xz")


@functools.cache
def schemas() -> dict[str, Any]:
    """Give the schemas by type, without custom resources, whose properties are free; read for the first stack."""
    return json.loads(lzma.decompress(_TABLE.read_bytes()))["types"]  # type: ignore[no-any-return]


@functools.cache
def _validator(resource_type: str) -> Any:
    from jsonschema_rs import Draft7Validator  # with the first stack, too

    return Draft7Validator(schemas()[resource_type], mask="the value")  # which may be a secret


def problems(resource_type: str, properties: Any) -> Iterator[tuple[str, str]]:
    """Say of each part of coerced properties that AWS refuses where it is, and in AWS's words what is wrong."""
    for error in _validator(resource_type).iter_errors(properties) if resource_type in schemas() else ():
        path, keyword, value = "".join(f"/{step}" for step in error.instance_path), error.kind.name, error.kind.value
        if keyword == "required":
            yield path, f"#{path}: required key [{value}] not found"
        elif keyword == "additionalProperties":
            yield from ((path, f"#{path}: extraneous key [{name}] is not permitted") for name in value)
        elif not _is_open(error.instance):
            yield path, f"#{path}: failed validation constraint for keyword [{keyword}]: {error.message}"


def _is_open(value: Any) -> bool:
    if isinstance(value, str):
        return UNKNOWN in value or "{{resolve:" in value
    return any(map(_is_open, value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()))


def coerced(resource_type: str, properties: Any) -> Any:
    """Give numbers, booleans and texts the types of the schema, as CloudFormation does; the validator judges all."""
    return _coerced(properties, root := schemas().get(resource_type), root)


def _coerced(value: Any, schema: Any, root: Any) -> Any:
    while isinstance(schema, dict) and "$ref" in schema:
        schema = functools.reduce(dict.__getitem__, schema["$ref"].removeprefix("#/").split("/"), root)
    if not isinstance(schema, dict):
        return value
    if isinstance(value, dict):
        named, others = schema.get("properties", {}), next(iter(schema.get("patternProperties", {}).values()), None)
        return {name: _coerced(each, named.get(name, others), root) for name, each in value.items()}
    if isinstance(value, list):
        return [_coerced(each, schema.get("items"), root) for each in value]
    kind = schema.get("type")
    with contextlib.suppress(ValueError, KeyError):
        if kind == "boolean" and isinstance(value, str):
            return {"true": True, "false": False}[value.lower()]
        if kind in ("integer", "number") and isinstance(value, str):
            return int(value) if kind == "integer" else float(value)
    return json.dumps(value) if kind == "string" and isinstance(value, bool | int | float) else value
