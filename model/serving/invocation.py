"""One `POST /invocations`, without HTTP: the request's bytes and headers in, a status and a document out.

The server and its workers are thin shells around `respond` and `classify`.
"""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core.decoding import ImageError
from ..core.predictor import Predictor
from .request import JSON, JSON_LINES, NPY, Invocation, Options, RequestError, parse
from .settings import ServingSettings

if TYPE_CHECKING:
    from starlette.datastructures import Headers  # the workers, which import this too, know nothing of HTTP

logger = logging.getLogger(__name__)


class Timing(NamedTuple):
    """Where the time of one image went, in seconds."""

    decode: float
    inference: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller gets: an HTTP status and a document; `timing` is that of an image that was classified."""

    status: int
    body: bytes
    media_type: str = JSON
    timing: Timing | None = None


#: Classifies images; the answers have the order of the images.
ClassifyAll = Callable[[Sequence[bytes], Options], Awaitable[Sequence[Answer]]]


async def respond(headers: Headers, body: bytes | None, limits: ServingSettings, classify_all: ClassifyAll) -> Answer:
    """Answer a request; `body` is None if it has more than `limits.max_body_bytes`.

    `classify_all` is called once, with the images that could be read, unless the request is refused. The answer is 200
    with the predictions; 4xx with the reason if the request or its only image is at fault; 500 if the model failed; 503
    if an image was. In a list, an image's error takes the place of its prediction.
    """
    content_type = headers.get("content-type", "")
    try:
        if body is None:
            raise RequestError(
                f"The request is too large; at most {limits.max_body_bytes:,} bytes are allowed.",
                status=413,
                code="image_too_large",
            )
        accept = ", ".join(headers.getlist("accept"))
        invocation = parse(body, content_type, accept, max_images=limits.max_images)
    except RequestError as error:
        return with_inline_errors(_refusal(error), content_type)
    given = invocation.images
    classified = iter(await classify_all([each for each in given if isinstance(each, bytes)], invocation.options))
    answers = [next(classified) if isinstance(each, bytes) else _refusal(each) for each in given]
    return with_inline_errors(_compose(invocation, answers), content_type)


def classify(predictor: Predictor, image: bytes, options: Options) -> Answer:
    """Classify one image: 200 with the prediction, 413 or 415 if it is refused, 500 if the model failed.

    The prediction is JSON or, with `options.as_numbers`, every label's probability as float32. Nothing is raised: one
    bad image must never end the process that serves the others.
    """
    try:
        started = time.perf_counter()
        pixels = predictor.prepare(image)
        decoded = time.perf_counter()
        probabilities = predictor.probabilities(pixels[np.newaxis])[0]
        timing = Timing(decoded - started, time.perf_counter() - decoded)
        if options.as_numbers:
            return Answer(200, probabilities.astype("<f4").tobytes(), NPY, timing)
        prediction = predictor.rank(probabilities, options.top_k)
        document: dict[str, Any] = {"predictions": [{"label": name, "probability": p} for name, p in prediction.ranked]}
        if options.scores:
            document["scores"] = prediction.scores
        document["model"] = {"name": predictor.card.name, "version": predictor.card.version}
        return Answer(200, json.dumps(document, ensure_ascii=False).encode(), timing=timing)
    except ImageError as error:
        return _refusal(error, len(image))
    except Exception:
        logger.exception("The model failed on an image", extra={"bytes": len(image)})
        return error_answer(500, "model_failed", "The model failed on this image; the endpoint's log says why.")


def error_answer(status: int, code: str, message: str) -> Answer:
    """Return an answer in the form that all errors have."""
    return Answer(status, json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False).encode())


def with_inline_errors(result: Answer, content_type: str) -> Answer:
    """Return an error as an ordinary answer to a caller who asks for that with `image/jpeg; errors=inline`.

    SageMaker Batch Transform keeps nothing of an answer with another status than 200, and fails the whole job for it.
    503 stays what it is: it is about the server, not about the image, and worth another try.
    """
    if result.status in (200, 503):
        return result
    asked = any(part.replace(" ", "") == "errors=inline" for part in content_type.lower().split(";")[1:])
    return Answer(200, result.body) if asked else result


def _compose(invocation: Invocation, answers: Sequence[Answer]) -> Answer:
    """Make one answer of those to a request's images."""
    # A server that cannot answer now says so for the whole request, which is then sent again.
    alone = next((each for each in answers if each.status == 503), None if invocation.is_batch else answers[0])
    if alone is not None and alone.status != 200:
        return alone
    if invocation.media_type == NPY:
        return _array_answer(answers)
    if invocation.media_type == JSON_LINES:
        return Answer(200, b"".join(each.body + b"\n" for each in answers), JSON_LINES)
    return alone or Answer(200, b'{"results": [' + b", ".join(each.body for each in answers) + b"]}")


def _array_answer(answers: Sequence[Answer]) -> Answer:
    """Return the probabilities, float32 [N, C], as a .npy file; the row of an image without a prediction is NaN."""
    rows = [np.frombuffer(each.body, "<f4") if each.status == 200 else None for each in answers]
    classes = next((len(row) for row in rows if row is not None), None)
    if classes is None:  # how many columns there would be is only known from a prediction
        return answers[0]
    missing = np.full(classes, np.nan, "<f4")
    file = io.BytesIO()
    np.save(file, np.stack([missing if row is None else row for row in rows]), allow_pickle=False)
    return Answer(200, file.getvalue(), NPY)


def _refusal(error: RequestError | ImageError, size: int | None = None) -> Answer:
    logger.info("Refused an image", extra={"status": error.status, "reason": str(error), "bytes": size})
    return error_answer(error.status, error.code, str(error))
