"""The schemas of templates' resources: what AWS takes is taken, what it refuses is refused, in its words."""

from __future__ import annotations

import json
import lzma
from typing import Any

import pytest
import resource_schemas
from examples import examples

from emulator.ministack.cloudformation import schemas


@pytest.mark.parametrize(("kind", "properties", "reasons"), examples(__file__, "said"))
def test_what_aws_says_of_properties(kind: str, properties: Any, reasons: list[str]) -> None:
    unknown = json.loads(json.dumps(properties).replace('"?"', json.dumps(schemas.UNKNOWN)))
    said = [reason for _, reason in schemas.problems(kind, schemas.coerced(kind, unknown))]
    assert sorted(said) == sorted(reasons)


def test_the_table_is_made_of_the_pinned_schemas_of_all_types_here() -> None:
    made = json.loads(lzma.decompress(resource_schemas.make()))
    assert made["types"] == schemas.schemas(), "make schemas"
