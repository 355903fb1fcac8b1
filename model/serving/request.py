"""What a `POST /invocations` asks for: an image, and what is to be said about it."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Any

from ..core.decoding import FORMAT_NAMES

DEFAULT_TOP_K = 5
# No model has as many labels, and it fits into the four bytes that carry it to a worker.
_MAX_TOP_K = 2**31 - 1

_OPTIONS = frozenset({"top_k", "scores"})
_JSON_KEYS = _OPTIONS | {"image"}
_NUMBER = re.compile(r"[0-9]{1,9}")
# The last one is of the SageMaker SDK's DataSerializer.
_OPAQUE_TYPES = ("", "application/octet-stream", "application/x-image", "file-path/raw-bytes")
_JSON_START = re.compile(rb"(\xef\xbb\xbf)?\s*[\[{]")


class RequestError(Exception):
    """The request itself is at fault; the message says what is allowed."""

    def __init__(self, message: str, *, status: int = 400, code: str = "bad_request") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Options:
    """How many labels to name, and whether to give every label's probability."""

    top_k: int = DEFAULT_TOP_K
    scores: bool = False


def parse(body: bytes, content_type: str) -> tuple[bytes, Options]:
    """Read a request: the image's bytes and the options; a RequestError says why it cannot be answered.

    `body` is an image, or JSON: `{"image": "<base64>", "top_k": 5, "scores": true}`. Options may follow the content
    type as well, `image/jpeg; top_k=3; scores=true`, because Batch Transform sends no other header that a job can
    choose; JSON's keys win over them.
    """
    media_type, *parameters = (part.strip() for part in content_type.lower().split(";"))
    options: dict[str, Any] = {}
    for name, _, value in (parameter.partition("=") for parameter in parameters):
        # The type's other parameters, such as charset, say nothing that matters here.
        if name.strip() in _OPTIONS:
            options[name.strip()] = _from_text(value.strip())
    if media_type == "application/json" or media_type.endswith("+json"):
        document = _json_object(body)
        options |= {name: document[name] for name in _OPTIONS & document.keys()}
        body = _from_base64(document["image"])
    elif media_type in _OPAQUE_TYPES and _JSON_START.match(body):
        problem = f"is {media_type!r}" if media_type else "is missing"
        raise _unsupported(f"The body looks like JSON, but its Content-Type {problem}; send it as application/json.")
    elif media_type not in _OPAQUE_TYPES and not media_type.startswith("image/"):
        raise _unsupported(
            f"The Content-Type {media_type[:60]!r} is not understood. Send the bytes of an image ({FORMAT_NAMES}) as "
            'image/* or application/octet-stream, or {"image": "<base64>"} as application/json.'
        )
    return body, _checked(**options)


def _unsupported(message: str) -> RequestError:
    return RequestError(message, status=415, code="unsupported_image")


def _from_text(value: str) -> object:
    return int(value) if _NUMBER.fullmatch(value) else {"true": True, "false": False}.get(value, value)


def _checked(top_k: object = DEFAULT_TOP_K, scores: object = False) -> Options:
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
        raise RequestError(f"top_k must be a whole number of at least 1, not {str(top_k)[:60]!r}.")
    if not isinstance(scores, bool):
        raise RequestError(f"scores must be true or false, not {str(scores)[:60]!r}.")
    return Options(min(top_k, _MAX_TOP_K), scores)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The body is not valid JSON: {error}.") from None
    if not isinstance(document, dict) or "image" not in document:
        raise RequestError('The JSON body must be an object with an image in base64 under "image".')
    unknown = sorted(document.keys() - _JSON_KEYS)
    if unknown:
        raise RequestError(f"The key {unknown[0][:60]!r} is not known; allowed are {', '.join(sorted(_JSON_KEYS))}.")
    return document


def _from_base64(text: object) -> bytes:
    if not isinstance(text, str):
        raise RequestError('Under "image" there must be one image as text in base64.')
    try:
        # Line breaks are part of base64 as mail and the command line write it.
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise RequestError('The text under "image" is not valid base64.') from None
