"""What a batch knows of its images: one record each, kept in the bucket as JSON Lines, given as Parquet too.

A record is what makes a batch resumable: an image whose record is of its present bytes (`etag`) and of the deployed
model (`sagemaker_model`) is not labelled again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.serving.answers import parse_answer

Label = dict[str, Any]

_ENDING = ".out"  # what SageMaker appends to an image's name for its answer's
BAD_ANSWER = "bad_answer"  # what the model answered is no answer
_FINAL_ERRORS = ("unsupported_image", "image_too_large")  # the image is at fault: another try would end the same way


@dataclass(frozen=True)
class InputImage:
    """An image in the bucket."""

    etag: str  # changes with the bytes
    size: int  # bytes


def match_answers(answers: Iterable[str], images: Collection[str], source: str) -> dict[str, str]:
    """Find out which answer is to which image; return the answers by their images.

    AWS says that an answer lies "in a corresponding subfolder", and shows one below another folder than the image's.
    So an answer is to the image whose key ends as the answer's does, over as many folders as possible; to none where
    several images do, or the image has its answer already. Keys are below the output's and the input's prefix, `source`
    is the latter, with a trailing slash.
    """
    ends: dict[str, str | None] = {}  # what keys end in, after a slash: the image, or None for several
    for image in images:
        for end in _ends(source + image):
            ends[end] = image if end not in ends else None
    ends.update({image: image for image in images})  # the very same place is better than any other
    matched: dict[str, str] = {}
    for answer in sorted(answers, key=lambda answer: (answer.removesuffix(_ENDING) not in images, answer)):
        if answer.endswith(_ENDING):
            found = next((ends[end] for end in _ends(answer.removesuffix(_ENDING)) if end in ends), None)
            if found is not None:
                matched.setdefault(found, answer)
    return matched


def _ends(key: str) -> Iterator[str]:
    """Yield the key, and what is left of it below each of its folders."""
    while key:
        yield key
        key = key.partition("/")[2]


def label_of_answer(name: str, etag: str, model: str, answer: bytes) -> Label:
    """Return the record of an image (its key below the input's prefix) that a SageMaker model has answered."""
    try:
        found = parse_answer(answer)
    except ValueError as error:
        return label_of_error(name, etag, model, BAD_ANSWER, f"The model answered {answer[:80]!r}: {error}.")
    best = {} if "error" in found else found["predictions"][0]
    return {"image": name, "etag": etag, "sagemaker_model": model, **best, **found}


def label_of_error(name: str, etag: str, model: str, code: str, message: str) -> Label:
    """Return the record of an image that has no label."""
    return {"image": name, "etag": etag, "sagemaker_model": model, "error": {"code": code, "message": message}}


def is_settled(label: Label | None, image: InputImage, model: str) -> bool:
    """Say whether an image needs no further work with this model."""
    if label is None or label["etag"] != image.etag or label["sagemaker_model"] != model:
        return False
    return "error" not in label or label["error"]["code"] in _FINAL_ERRORS


def to_json_lines(labels: Mapping[str, Label]) -> bytes:
    """Return all records in the order of the images' names, one a line."""
    lines = (json.dumps(labels[name], ensure_ascii=False) + "\n" for name in sorted(labels))
    return "".join(lines).encode()


def from_json_lines(content: bytes) -> dict[str, Label]:
    """Read what `to_json_lines` wrote, by the image's name; a ValueError when it is something else."""
    labels: dict[str, Label] = {}
    for line in filter(None, content.decode().split("\n")):
        try:
            label = json.loads(line)
        except RecursionError:
            label = None
        names = ("image", "etag", "sagemaker_model")
        if not isinstance(label, dict) or not all(isinstance(label.get(name), str) for name in names):
            raise ValueError(f"{line[:80]!r} is no record of an image")
        labels[label["image"]] = label
    return labels


def write_parquet(labels: Iterable[Label], path: Path) -> None:
    """Write the records as a Parquet table; its columns do not depend on what is in the records."""
    import pyarrow as pa  # half a second: not needed by the other commands
    import pyarrow.parquet as parquet

    text, number = pa.string(), pa.float64()
    prediction = pa.struct({"label": text, "probability": number})
    fields = {
        **dict.fromkeys(("image", "etag", "label"), text),
        "probability": number,
        "predictions": pa.list_(prediction),
        "scores": pa.list_(number),
        "known": pa.bool_(),
        "ood_score": number,
        "error": pa.struct({"code": text, "message": text}),
        "model": pa.struct({"name": text, "version": text}),
        "sagemaker_model": text,
    }
    rows = sorted(labels, key=lambda label: label["image"])
    parquet.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), path)
