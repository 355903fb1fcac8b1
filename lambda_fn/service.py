"""A request's life: parse the event, get the image, call the endpoint, map the outcome to an answer."""

from __future__ import annotations

import base64
import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import metrics
from .aws.endpoint import Classification, EndpointClient
from .config import Settings
from .connection import Deadline
from .errors import InternalError, MethodNotAllowedError, NotFoundError, NotReadyError, ServiceError
from .fetching import ImageFetcher
from .image_url import ImageUrl
from .request import ClassificationRequest, HttpRequest, checked_event, from_document, from_http

if TYPE_CHECKING:
    from .aws.caller_limit import CallerLimit

logger = logging.getLogger(__name__)

# What the log and the metrics tell about one request, by the names that docs/function.md gives.
Record = dict[str, Any]

# The names of the same measures in the header Server-Timing.
_TIMINGS = {"limit": "limit_ms", "fetch": "fetch_ms", "endpoint": "endpoint_ms", "total": "duration_ms"}
_METHODS = {"/": "POST", "/health": "GET, HEAD", "/openapi.json": "GET, HEAD"}
# Left for answering before Lambda ends the function, which would cost the caller our answer and us the environment.
_ANSWER_SECONDS = 0.5
_HEALTH_SECONDS = 5.0
_HEALTH_CACHE_SECONDS = 5.0
# A grey PNG of 8 x 8 pixels: the smallest honest question.
_HEALTH_IMAGE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAADklEQVR42mNogAIGyhgAgIQgARDoahcAAAAASUVORK5CYII="
)


class Service:
    """Answers events."""

    def __init__(
        self, settings: Settings, endpoint: EndpointClient, fetcher: ImageFetcher, limit: CallerLimit | None = None
    ) -> None:
        self._settings = settings
        self._endpoint = endpoint
        self._fetcher = fetcher
        self._limit = limit
        self._health: tuple[float, Classification | ServiceError] | None = None

    def answer(self, event: object, *, request_id: str, remaining_seconds: float) -> dict[str, Any]:
        """Answer an event with ``statusCode``, ``headers`` and ``body`` (JSON text), whatever happens.

        `remaining_seconds` is the time until Lambda ends the function. Only an event that is neither a request nor a
        document for this function is not answered: an UnsupportedEventError is raised.
        """
        event = checked_event(event)
        record: Record = {"request_id": request_id, "route": "none", "status": 200}
        headers = {
            "content-type": "application/json",
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            "x-request-id": request_id,
        }
        with _timed(record, "duration_ms"):
            try:
                body = self._body(event, record, Deadline(remaining_seconds - _ANSWER_SECONDS))
            except Exception as unexpected:
                error = unexpected if isinstance(unexpected, ServiceError) else InternalError(detail=repr(unexpected))
                if error is not unexpected:
                    logger.exception("unexpected failure", extra={"request_id": request_id})
                record |= {"status": error.status, "code": error.code}
                if error.detail is not None:
                    record["detail"] = error.detail
                headers |= error.headers
                body = {"error": {"code": error.code, "message": error.message}}
        # Of a fetch that failed, its time would tell which hosts there are.
        if record["route"] == "classify" and record["status"] == 200:
            steps = [f"{name};dur={record[key]}" for name, key in _TIMINGS.items() if key in record]
            headers["server-timing"] = ", ".join(steps)
        self._report(record)
        if record["route"] != "openapi":  # a document whose form is another's
            body["request_id"] = request_id
        text = "" if record.get("method") == "HEAD" else json.dumps(body)
        return {"statusCode": record["status"], "headers": headers, "body": text}

    def _body(self, event: dict[str, Any], record: Record, deadline: Deadline) -> dict[str, Any]:
        limit = self._settings.max_image_bytes
        if "requestContext" not in event:  # a direct invocation with a bare document
            record["route"] = "classify"
            return self._classify(from_document(event, limit), record, deadline)
        request = HttpRequest.from_event(event)
        record["method"] = request.method[:10]
        path = request.path.rstrip("/") or "/"
        allowed = _METHODS.get(path)
        if allowed is None:
            raise NotFoundError("There is nothing at this path; POST an image to /, GET /health or GET /openapi.json.")
        if request.method not in allowed.split(", "):
            raise MethodNotAllowedError(allowed)
        if path == "/health":
            record["route"] = "health"
            return self._check_health(record, deadline)
        if path == "/openapi.json":
            description: dict[str, Any] = json.loads(Path(__file__).with_name("openapi.json").read_bytes())
            record["route"] = "openapi"
            return description
        record["route"] = "classify"
        if self._limit and request.caller:
            with _timed(record, "limit_ms"):
                self._limit.count(request.caller, deadline)
        return self._classify(from_http(request, limit), record, deadline)

    def _classify(self, request: ClassificationRequest, record: Record, deadline: Deadline) -> dict[str, Any]:
        record["source"] = request.source
        image = request.image
        if isinstance(image, ImageUrl):
            record["url_host"] = image.host
            with _timed(record, "fetch_ms"):
                image = self._fetcher.fetch(image, deadline)
        record["image_bytes"] = len(image)
        deadline = deadline.within(self._settings.endpoint_timeout_seconds)
        with _timed(record, "endpoint_ms"):
            result = self._endpoint.classify(image, top_k=request.top_k, scores=request.scores, deadline=deadline)
        return {"predictions": result.predictions, "model": result.model, **result.optional}

    def _check_health(self, record: Record, deadline: Deadline) -> dict[str, Any]:
        """Classify a tiny image, at most once in a few seconds however often one asks."""
        now = time.time()
        if self._health is None or not 0 <= now - self._health[0] < _HEALTH_CACHE_SECONDS:
            outcome: Classification | ServiceError
            deadline = deadline.within(_HEALTH_SECONDS)
            try:
                with _timed(record, "endpoint_ms"):
                    outcome = self._endpoint.classify(_HEALTH_IMAGE, top_k=1, scores=False, deadline=deadline)
            except ServiceError as error:
                outcome = error
            self._health = (now, outcome)
        outcome = self._health[1]
        if isinstance(outcome, ServiceError):
            raise NotReadyError(detail=f"{outcome.code}: {outcome.detail or outcome.message}")
        return {"status": "ok", "model": outcome.model}

    def _report(self, record: Record) -> None:
        failed = record["status"] >= 500 or record["status"] == 424
        logger.log(logging.ERROR if failed else logging.INFO, "request", extra=record)
        if record["route"] in ("health", "openapi"):
            return  # probes would drown the latency of real requests
        line = metrics.document(self._settings.metrics_namespace, self._settings.function_name, record)
        # In one write, so that lines of several processes cannot mix.
        sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
        sys.stdout.flush()


@contextmanager
def _timed(record: Record, name: str) -> Iterator[None]:
    """Note how many milliseconds a step took, also when it fails."""
    started = time.perf_counter()
    try:
        yield
    finally:
        record[name] = round((time.perf_counter() - started) * 1000, 3)
