"""The JSONPath of AWS's guide to batch transform, "Supported JSONPath Operators", and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from emulator.platform.errors import refuse

_NAME, _INDEX = r"'[^']+'", r"(?:(?:-?\d+)?:(?:-?\d+)?|-?\d+)"
_STEP = (
    rf"\.(?P<child>[\w-]+)|\.?\[(?P<names>{_NAME}(?:\s*,\s*{_NAME})*)\]"
    rf"|\.?\[(?P<indexes>{_INDEX}(?:\s*,\s*{_INDEX})*)\]|(?P<all>\.\*|\.?\[\*\])"
)


class JsonPath:
    """One expression, refused unless AWS has it; `by_index`: whether it can select from a row of CSV."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._steps = [(str(step.lastgroup), step[str(step.lastgroup)]) for step in re.finditer(_STEP, text)]
        nested = any(kind == "names" and value.count("'") > 2 for kind, value in self._steps[:-1])
        refuse(
            nested or not re.fullmatch(rf"\$(?:{_STEP})*", text),
            f"Invalid JSONPath {text!r}. SageMaker knows $, .name, *, ['name','other'] (several at the end only), "
            "[0,-1] and [start:end].",
        )
        self.whole = not self._steps
        self.by_index = self.whole or [kind for kind, _ in self._steps] == ["indexes"]

    def select(self, value: Any) -> Any:
        """Select from a JSON value: one value, or a list where the path may lead to several; ValueError for none."""
        found, several = [value], False
        for kind, text in self._steps:
            several |= kind == "all" or (kind == "indexes" and bool({",", ":"} & set(text)))
            try:
                found = [item for node in found for item in _children(node, kind, text)]
            except (LookupError, TypeError):
                raise ValueError(f"nothing is at {self._text}") from None
        return found if several else found[0]


def _children(node: Any, kind: str, text: str) -> Iterator[Any]:
    if kind == "all" and isinstance(node, dict | list):
        yield from node.values() if isinstance(node, dict) else node
    elif kind in ("child", "names") and isinstance(node, dict):
        names = re.findall("'([^']+)'", text) or [text]
        yield node[names[0]] if len(names) == 1 else {name: node[name] for name in names}
    elif kind == "indexes" and isinstance(node, list):
        for start, colon, end in (item.strip().partition(":") for item in text.split(",")):
            # The guide: "all of the elements between two values, inclusive".
            stop = None if end in ("", "-1") else int(end) + 1
            yield from node[int(start) if start else None : stop] if colon else [node[int(start)]]
    else:
        raise TypeError
