"""What a batch knows of its pictures: one record each, kept in the bucket as JSON Lines, given as Parquet too.

A record is what makes a batch resumable: a picture whose record is of its present bytes (`etag`) and of the deployed
model (`sagemaker_model`) is not labelled again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Label = dict[str, Any]

#: The picture itself is at fault: another try would end the same way.
_FINAL_ERRORS = frozenset({"unsupported_image", "image_too_large"})


@dataclass(frozen=True)
class InputPicture:
    """A picture in the bucket."""

    etag: str  # changes with the bytes
    size: int  # bytes


def label_of_answer(name: str, etag: str, model: str, answer: bytes) -> Label:
    """The record of a picture that the model has answered.

    Parameters
    ----------
    name
        Its key below the input's prefix.
    model
        Name of the SageMaker model.
    answer
        The JSON document of `/invocations`: predictions, or an error.
    """
    try:
        document = json.loads(answer)
        if "error" in document:
            return label_of_error(name, etag, model, document["error"]["code"], document["error"]["message"])
        best = document["predictions"][0]
        found = {"label": best["label"], "probability": best["probability"]}
    except (ValueError, TypeError, LookupError):
        return label_of_error(name, etag, model, "bad_answer", f"The model answered {answer[:80]!r}.")
    return {"picture": name, "etag": etag, "sagemaker_model": model, **found, **document}


def label_of_error(name: str, etag: str, model: str, code: str, message: str) -> Label:
    """The record of a picture that has no label."""
    return {"picture": name, "etag": etag, "sagemaker_model": model, "error": {"code": code, "message": message}}


def is_settled(label: Label | None, picture: InputPicture, model: str) -> bool:
    """Whether a picture needs no further work with this model."""
    if label is None or label["etag"] != picture.etag or label["sagemaker_model"] != model:
        return False
    return "error" not in label or label["error"]["code"] in _FINAL_ERRORS


def to_json_lines(labels: Mapping[str, Label]) -> bytes:
    """All records in the order of the pictures' names, one a line."""
    lines = (json.dumps(labels[name], ensure_ascii=False) + "\n" for name in sorted(labels))
    return "".join(lines).encode()


def from_json_lines(content: bytes) -> dict[str, Label]:
    """What `to_json_lines` wrote, by the picture's name.

    Raises
    ------
    ValueError
        It is something else.
    """
    labels: dict[str, Label] = {}
    for line in content.decode().split("\n"):
        if line:
            label = json.loads(line)
            if not isinstance(label, dict) or not {"picture", "etag", "sagemaker_model"} <= label.keys():
                raise ValueError(f"{line[:80]!r} is no record of a picture")
            labels[label["picture"]] = label
    return labels


def write_parquet(labels: Iterable[Label], path: Path) -> None:
    """Write the records as a Parquet table; its columns do not depend on what is in the records."""
    import pyarrow as pa  # half a second: not needed by the other commands
    import pyarrow.parquet as parquet

    text, number = pa.string(), pa.float64()
    schema = pa.schema(
        {
            "picture": text,
            "etag": text,
            "label": text,
            "probability": number,
            "predictions": pa.list_(pa.struct({"label": text, "probability": number})),
            "scores": pa.list_(number),
            "error": pa.struct({"code": text, "message": text}),
            "model": pa.struct({"name": text, "version": text}),
            "sagemaker_model": text,
        }
    )
    rows = sorted(labels, key=lambda label: label["picture"])
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path)
