"""What a model answers, taken over field by field: an artifact may answer anything."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

#: The most of an answer that is read, as InvokeEndpoint has it.
MAX_BYTES = 6 * 2**20
_Text = Annotated[str, Field(max_length=2000)]
_Probability = Annotated[float, Field(ge=0, le=1 + 1e-6)]  # in single precision, rounded up


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)  # infinity is no JSON


class _Prediction(_Strict):
    label: _Text
    probability: _Probability


class _Model(_Strict):
    name: _Text
    version: _Text


class _Error(_Strict):
    code: _Text
    message: _Text


class _Failure(_Strict):
    request_id: _Text | None = None
    error: _Error


class _Answer(_Strict):
    request_id: _Text | None = None
    error: None = None
    predictions: Annotated[list[_Prediction], Field(min_length=1)]
    model: _Model
    scores: Annotated[list[_Probability], Field(min_length=1)] | None = None
    known: bool | None = None
    ood_score: Annotated[float, Field(ge=0)] | None = None


_ANY: TypeAdapter[_Failure | _Answer] = TypeAdapter(_Failure | _Answer)


def parse_answer(content: bytes) -> dict[str, Any]:
    """Parse what `/invocations` or the function answers to one image; give its known fields and no others.

    Either ``predictions`` (at least one), ``model`` and, where they are there, ``scores``, ``known`` and ``ood_score``;
    or ``error``. The function adds a ``request_id``. A ValueError says that it is something else.
    """
    if len(content) > MAX_BYTES:
        raise ValueError("too long")
    try:
        return _ANY.validate_json(content).model_dump(exclude_none=True)
    except ValidationError as error:
        raise ValueError("not an answer to an image") from error
