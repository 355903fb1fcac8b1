"""Tables of examples, which stand in YAML beside the test that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def examples(test: str, table: str) -> Any:
    """Return a table of the YAML file that has a test's name."""
    tables: dict[str, Any] = yaml.safe_load(Path(test).with_suffix(".yaml").read_text(encoding="utf-8"))
    return tables[table]


def refusals(test: str, requests: Mapping[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any], str, str]]:
    """Return operation, request, message and code (or "") of the table `refused` of a test.

    Its rows are changes of requests that are taken.
    """
    return [
        (operation, changed(requests.get(operation, {}), change), message, "".join(code))
        for operation, rows in examples(test, "refused").items()
        for message, change, *code in rows
    ]


def changed(request: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Merge a change into a request; None takes a member out."""
    deeper = {name: changed(request.get(name, {}), new) for name, new in change.items() if isinstance(new, dict)}
    return {name: value for name, value in {**request, **change, **deeper}.items() if value is not None}
