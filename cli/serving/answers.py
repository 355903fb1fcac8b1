"""What a model answers, taken over field by field: an artifact may answer anything."""

from __future__ import annotations

import json
from typing import Any

#: The most of an answer that is read, as InvokeEndpoint has it.
MAX_BYTES = 6 * 2**20
_MAX_CHARACTERS = 2000
_MOST = 1 + 1e-6  # a probability in single precision, rounded up


def load_json(content: bytes) -> Any:
    """Parse a JSON document that anybody may have written; a ValueError when it is none, or is nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_answer(content: bytes) -> dict[str, Any]:
    """Parse what `/invocations` or the function answers to one image; give its known fields and no others.

    Either ``predictions`` (at least one), ``model`` and, where they were asked for, ``scores``; or ``error``.
    The function adds a ``request_id``.

    Raises
    ------
    ValueError
        It is something else.
    """
    if len(content) > MAX_BYTES:
        raise ValueError("too long")
    document = load_json(content)
    try:
        found: dict[str, Any] = {"request_id": _text(document["request_id"])} if "request_id" in document else {}
        if "error" in document:
            return found | {"error": _texts(document["error"], "code", "message")}
        found |= {
            "predictions": [
                {"label": _text(one["label"]), "probability": _probability(one["probability"])}
                for one in _list(document["predictions"])
            ],
            "model": _texts(document["model"], "name", "version"),
        }
        if "scores" in document:
            found["scores"] = [_probability(score) for score in _list(document["scores"])]
        return found
    except (TypeError, LookupError) as error:
        raise ValueError("not an answer to an image") from error


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError("not a list with something in it")
    return value


def _texts(document: Any, *names: str) -> dict[str, str]:
    return {name: _text(document[name]) for name in names}


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_CHARACTERS:
        raise ValueError("not a text, or too long")
    value.encode()  # raises a ValueError for half a character
    return value


def _probability(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
        raise ValueError("not a probability")
    return float(value)
