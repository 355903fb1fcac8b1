"""What a `POST /invocations` asks for: its images, its options, and the form that the answer is to have."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..core.decoding import FORMAT_NAMES

DEFAULT_TOP_K = 5
# No model has as many labels, and it fits into the four bytes that carry it to a worker.
_MAX_TOP_K = 2**31 - 1

_OPTIONS = frozenset({"top_k", "scores"})
_JSON_KEYS = _OPTIONS | {"image", "images"}
_NUMBER = re.compile(r"[0-9]{1,9}")
JSON = "application/json"
JSON_LINES = "application/jsonlines"
NPY = "application/x-npy"
#: What the service can answer with, its favourite first.
OFFERED = (JSON, JSON_LINES, NPY)

# Java's own client sends `*; q=.2`, which the RFC would write `*/*;q=0.2`.
_WEIGHT = re.compile(r"0?\.\d{1,9}|0\.?|1(\.0{0,9})?")
_IMAGE_TYPES = ("", "application/octet-stream", "application/x-image")


class RequestError(Exception):
    """The request itself is at fault; the message says what is allowed."""

    def __init__(self, message: str, *, status: int = 400, code: str = "bad_request") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be said about each image; `as_numbers`: nothing but every label's probability, as float32."""

    top_k: int = DEFAULT_TOP_K
    scores: bool = False
    as_numbers: bool = False


@dataclass(frozen=True, slots=True)
class Invocation:
    """A request that is understood: each image or its error, and whether they came as a list, be it of one."""

    images: tuple[bytes | RequestError, ...]
    is_batch: bool
    options: Options
    media_type: str


def parse(body: bytes, content_type: str, accept: str, *, max_images: int) -> Invocation:
    """Read a request; a RequestError says why nothing of it can be answered.

    Parameters
    ----------
    body
        The image's bytes, or JSON: `{"image": "<base64>", "top_k": 5, "scores": true}`, or a list under `images`.
    content_type
        Options may follow it: `image/jpeg; top_k=3; scores=true`; JSON's keys win over them. Batch Transform sends no
        other header that a job can choose.
    accept
        See `negotiate`.
    max_images
        The longest list that is allowed.
    """
    answer_type = negotiate(accept)
    if answer_type is None:
        raise RequestError(
            f"No answer of the kind {accept[:100]!r} can be given; the Accept header may ask for {', '.join(OFFERED)}.",
            status=406,
            code="not_acceptable",
        )
    media_type, *parameters = (part.strip() for part in content_type.lower().split(";"))
    # The type's other parameters, such as charset, say nothing that matters here.
    options = _parse_options(text for text in parameters if text.partition("=")[0].strip() in _OPTIONS)
    is_batch = False
    images: tuple[bytes | RequestError, ...] = (body,)
    if media_type == "application/json" or media_type.endswith("+json"):
        document = _json_object(body)
        options |= _json_options(document)
        images, is_batch = _json_images(document, max_images)
    elif media_type not in _IMAGE_TYPES and not media_type.startswith("image/"):
        raise RequestError(
            f"The Content-Type {media_type[:60]!r} is not understood. Send the bytes of an image ({FORMAT_NAMES}) as "
            'image/* or application/octet-stream, or {"image": "<base64>"} as application/json.',
            status=415,
            code="unsupported_image",
        )
    return Invocation(images, is_batch, Options(**options, as_numbers=answer_type == NPY), answer_type)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The body is not valid JSON: {error}.") from None
    if not isinstance(document, dict) or ("image" in document) == ("images" in document):
        raise RequestError('The JSON body must be an object with either "image" or "images".')
    unknown = sorted(document.keys() - _JSON_KEYS)
    if unknown:
        raise RequestError(f"The key {unknown[0][:60]!r} is not known; allowed are {', '.join(sorted(_JSON_KEYS))}.")
    return document


def _json_images(document: dict[str, Any], max_images: int) -> tuple[tuple[bytes | RequestError, ...], bool]:
    """Return the images, and whether they came as a list."""
    if "image" in document:
        if not isinstance(document["image"], str):
            raise RequestError('Under "image" there must be one image as text in base64; a list goes under "images".')
        image = _from_base64(document["image"], 'The text under "image"')
        if isinstance(image, RequestError):
            raise image
        return (image,), False
    given = document["images"]
    if not isinstance(given, list) or not given or not all(isinstance(text, str) for text in given):
        raise RequestError('Under "images" there must be a list of texts in base64, with at least one in it.')
    if len(given) > max_images:
        raise RequestError(f"The list has {len(given):,} images; at most {max_images:,} are allowed in a request.")
    return tuple(_from_base64(text, f'Text {number} under "images"') for number, text in enumerate(given, 1)), True


def _from_base64(text: str, name: str) -> bytes | RequestError:
    try:
        # Line breaks are part of base64 as mail and the command line write it.
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return RequestError(f"{name} is not valid base64.")


def _json_options(document: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if "top_k" in document:
        options["top_k"] = _checked_top_k(document["top_k"])
    if "scores" in document:
        if not isinstance(document["scores"], bool):
            raise RequestError("scores must be true or false.")
        options["scores"] = document["scores"]
    return options


def _parse_options(texts: Iterable[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if name == "top_k":
            options[name] = _checked_top_k(int(value) if _NUMBER.fullmatch(value) else value)
        elif name == "scores" and value in ("true", "false"):
            options[name] = value == "true"
        else:
            raise RequestError(f"The option {text[:60]!r} is not understood; allowed are scores=true and scores=false.")
    return options


def _checked_top_k(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RequestError(f"top_k must be a whole number of at least 1, not {str(value)[:60]!r}.")
    return min(value, _MAX_TOP_K)


def negotiate(accept: str) -> str | None:
    """Return the media type that a caller prefers of those in `OFFERED`, None if none is acceptable.

    No header accepts everything; of several that weigh the same, the first of `OFFERED` is taken.
    """
    if accept in ("", "*/*", JSON):  # what nearly all callers send
        return JSON
    # By the range, its weight. A type's weight is that of the most specific range that it matches.
    weights = dict(filter(None, map(_weighted_range, accept.lower().split(","))))
    weighted = [
        (next((weights[range_] for range_ in (offered, "application/*", "*/*") if range_ in weights), 0.0), offered)
        for offered in OFFERED
    ]
    weight, best = max(weighted, key=lambda pair: pair[0])
    return best if weight > 0 else None


def _weighted_range(text: str) -> tuple[str, float] | None:
    media_range, *parameters = (part.strip() for part in text.split(";"))
    weight: float | None = 1.0
    for parameter in parameters:
        name, _, value = (part.strip() for part in parameter.partition("="))
        if name == "q":
            weight = float(value) if _WEIGHT.fullmatch(value) else None
    return None if weight is None else ("*/*" if media_range == "*" else media_range, weight)
