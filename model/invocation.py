"""One `POST /invocations`, without HTTP: the request's bytes and headers in, a status and a JSON document out.

The serving container's workers and the Ray Serve deployment are thin shells around `answer`, so that the same
request gets the same answer from either.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .decoding import FORMAT_NAMES, ImageError
from .predictor import Prediction, Predictor

DEFAULT_TOP_K = 5
CUSTOM_ATTRIBUTES_HEADER = "x-amzn-sagemaker-custom-attributes"

_OPTIONS = frozenset({"top_k", "scores"})
_JSON_KEYS = _OPTIONS | {"image"}
_NUMBER = re.compile(r"[0-9]{1,9}")
_PICTURE_TYPES = ("", "application/octet-stream", "application/x-image")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller gets: an HTTP status and the bytes of a JSON document."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Request:
    picture: bytes
    top_k: int = DEFAULT_TOP_K
    scores: bool = False


class _RequestError(Exception):
    """The request itself is at fault."""

    def __init__(self, message: str, *, status: int = 400, code: str = "bad_request") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def answer(predictor: Predictor, body: bytes, content_type: str, custom_attributes: str) -> Answer:
    """Classify the picture in a request.

    Parameters
    ----------
    body
        The picture's bytes, or JSON `{"image": "<base64>", "top_k": 5, "scores": true}`.
    content_type
        `image/*`, `application/x-image`, `application/octet-stream` or nothing for the former, `application/json`
        for the latter. Parameters may follow it: `image/jpeg; top_k=3; scores=true`. That is the only way to ask for
        them with a picture's bytes that every container passes on: the adapter in AWS's Ray Serve image drops all
        headers but `Content-Type` and `Accept`.
    custom_attributes
        SageMaker's header of that name, nothing or `top_k=3,scores=true`. Where several places say something
        different, JSON's keys win over this header and this header over the parameters.

    Returns
    -------
    Answer
        200 with the predictions; 400, 413 or 415 with the reason if the request or its picture is at fault; 500 if
        the model failed. Nothing is raised: one bad request must never end the process that serves the others.
    """
    try:
        request = _parse(body, content_type, custom_attributes)
        prediction = predictor.predict(request.picture, request.top_k)
    except (_RequestError, ImageError) as error:
        logger.info("Refused a request", extra={"status": error.status, "reason": str(error), "bytes": len(body)})
        return error_answer(error.status, error.code, str(error))
    except Exception:
        logger.exception("The model failed on a request", extra={"bytes": len(body), "content_type": content_type})
        return error_answer(500, "model_failed", "The model failed on this picture; the endpoint's log says why.")
    return Answer(200, json.dumps(_document(predictor, prediction, request.scores), ensure_ascii=False).encode())


def error_answer(status: int, code: str, message: str) -> Answer:
    """Return an answer in the form that all errors have."""
    return Answer(status, json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False).encode())


def with_inline_errors(result: Answer, content_type: str) -> Answer:
    """Return an error as an ordinary answer to a caller who asks for that with `image/jpeg; errors=inline`.

    SageMaker Batch Transform keeps nothing of an answer with another status than 200, and fails the whole job for it.
    503 stays what it is: it is about the server, not about the picture, and worth another try.
    """
    asked = any(part.replace(" ", "") == "errors=inline" for part in content_type.lower().split(";")[1:])
    return Answer(200, result.body) if asked and result.status != 503 else result


def oversized_answer(max_body_bytes: int) -> Answer:
    """Return the answer to a request whose body is too large."""
    return error_answer(
        413, "image_too_large", f"The request is too large; at most {max_body_bytes:,} bytes are allowed."
    )


def _document(predictor: Predictor, prediction: Prediction, with_scores: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "predictions": [{"label": label, "probability": probability} for label, probability in prediction.ranked]
    }
    if with_scores:
        document["scores"] = prediction.scores
    document["model"] = {"name": predictor.card.name, "version": predictor.card.version}
    return document


def _parse(body: bytes, content_type: str, custom_attributes: str) -> _Request:
    media_type, *parameters = (part.strip() for part in content_type.lower().split(";"))
    # The type's other parameters, such as charset, say nothing that matters here.
    options = _parse_options(text for text in parameters if text.partition("=")[0].strip() in _OPTIONS)
    options |= _parse_options(part.strip() for part in custom_attributes.lower().split(","))
    if media_type in _PICTURE_TYPES or media_type.startswith("image/"):
        return _Request(body, **options)
    if media_type == "application/json" or media_type.endswith("+json"):
        return _parse_json(body, options)
    raise _RequestError(
        f"The Content-Type {media_type[:60]!r} is not understood. Send the bytes of a picture ({FORMAT_NAMES}) as "
        'image/* or application/octet-stream, or {"image": "<base64>"} as application/json.',
        status=415,
        code="unsupported_image",
    )


def _parse_json(body: bytes, options: dict[str, Any]) -> _Request:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _RequestError(f"The body is not valid JSON: {error}.") from None
    if not isinstance(document, dict) or not isinstance(document.get("image"), str):
        raise _RequestError('The JSON body must be an object with the picture under "image", as text in base64.')
    unknown = sorted(document.keys() - _JSON_KEYS)
    if unknown:
        raise _RequestError(f"The key {unknown[0][:60]!r} is not known; allowed are {', '.join(sorted(_JSON_KEYS))}.")
    try:
        # Line breaks are part of base64 as mail and the command line write it.
        picture = base64.b64decode("".join(document["image"].split()), validate=True)
    except (binascii.Error, ValueError):
        raise _RequestError('The text under "image" is not valid base64.') from None
    if "top_k" in document:
        options["top_k"] = _checked_top_k(document["top_k"])
    if "scores" in document:
        if not isinstance(document["scores"], bool):
            raise _RequestError("scores must be true or false.")
        options["scores"] = document["scores"]
    return _Request(picture, **options)


def _parse_options(texts: Iterable[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for text in filter(None, texts):
        name, _, value = (part.strip() for part in text.partition("="))
        if name == "top_k":
            options[name] = _checked_top_k(int(value) if _NUMBER.fullmatch(value) else value)
        elif name == "scores" and value in ("true", "false"):
            options[name] = value == "true"
        else:
            raise _RequestError(
                f"The option {text[:60]!r} is not understood; allowed are top_k=<number>, scores=true and scores=false."
            )
    return options


def _checked_top_k(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _RequestError(f"top_k must be a whole number of at least 1, not {str(value)[:60]!r}.")
    return value
