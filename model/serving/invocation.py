"""One `POST /invocations`, without HTTP: the request's bytes and content type in, a status and a document out.

The server and its workers are thin shells around `respond` and `classify`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..core.decoding import ImageError
from ..core.predictor import Predictor
from .request import Options, RequestError, parse

logger = logging.getLogger(__name__)


class Timing(NamedTuple):
    """Where the time of one image went, in seconds."""

    decode: float
    inference: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller gets: an HTTP status and JSON; `timing` is that of an image that was classified."""

    status: int
    body: bytes
    timing: Timing | None = None


#: Classifies one image.
Classify = Callable[[bytes, Options], Awaitable[Answer]]


async def respond(content_type: str, body: bytes | None, max_body_bytes: int, classify_image: Classify) -> Answer:
    """Answer a request; `body` is None if it has more than `max_body_bytes`.

    The answer is 200 with the prediction; 4xx with the reason if the request or its image is at fault; 500 if the model
    failed; 503 if `classify_image`, which is called unless the request is refused, says so.
    """
    try:
        if body is None:
            raise RequestError(
                f"The request is too large; at most {max_body_bytes:,} bytes are allowed.",
                status=413,
                code="image_too_large",
            )
        image, options = parse(body, content_type)
    except RequestError as error:
        return _with_inline_errors(_refusal(error), content_type)
    return _with_inline_errors(await classify_image(image, options), content_type)


def classify(predictor: Predictor, image: bytes, options: Options) -> Answer:
    """Classify one image: 200 with the prediction, 413 or 415 if it is refused, 500 if the model failed.

    Nothing is raised: one bad image must never end the process that serves the others.
    """
    try:
        started = time.perf_counter()
        pixels = predictor.prepare(image)
        decoded = time.perf_counter()
        outputs = predictor.run(pixels[np.newaxis])
        timing = Timing(decoded - started, time.perf_counter() - decoded)
        prediction = predictor.rank(outputs, options.top_k)
        document: dict[str, Any] = {"predictions": [{"label": name, "probability": p} for name, p in prediction.ranked]}
        if prediction.ood_score is not None:
            document |= {"known": prediction.ood_score <= 1, "ood_score": prediction.ood_score}
        if options.scores:
            document["scores"] = prediction.scores
        document["model"] = {"name": predictor.card.name, "version": predictor.card.version}
        return Answer(200, json.dumps(document, ensure_ascii=False).encode(), timing)
    except ImageError as error:
        return _refusal(error, len(image))
    except Exception:
        logger.exception("The model failed on an image", extra={"bytes": len(image)})
        return error_answer(500, "model_failed", "The model failed on this image; the endpoint's log says why.")


def error_answer(status: int, code: str, message: str) -> Answer:
    """Return an answer in the form that all errors have."""
    return Answer(status, json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False).encode())


def _with_inline_errors(answer: Answer, content_type: str) -> Answer:
    """Return an error as an ordinary answer to a caller who asks for that with `image/jpeg; errors=inline`.

    SageMaker Batch Transform keeps nothing of an answer with another status than 200, and fails the whole job for it.
    503 stays what it is: it is about the server, not about the image, and worth another try.
    """
    asked = any(part.replace(" ", "") == "errors=inline" for part in content_type.lower().split(";")[1:])
    return Answer(200, answer.body) if asked and answer.status != 503 else answer


def _refusal(error: RequestError | ImageError, size: int | None = None) -> Answer:
    # The reason of a malformed request quotes it: words of the caller, who gets them back, and no log does.
    reason = str(error) if isinstance(error, ImageError) else error.code
    logger.info("Refused an image", extra={"status": error.status, "reason": reason, "bytes": size})
    return error_answer(error.status, error.code, str(error))
