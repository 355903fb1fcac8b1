"""The call of the model's endpoint, InvokeEndpoint."""

from __future__ import annotations

import http.client
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import Settings
from ..connection import Deadline
from ..errors import (
    MODEL_CALLER_ERRORS,
    InternalError,
    ModelFailedError,
    NotReadyError,
    ServiceError,
    ThrottledError,
    TimedOutError,
)
from .signed import SignedClient, json_object

# AWS's media type for an image of any format: the server looks at the bytes, not at what a caller calls them.
_IMAGE_TYPE = "application/x-image"
_THROTTLING = frozenset({"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"})
_MAX_ANSWER_BYTES = 6 * 1024 * 1024
_MAX_MODEL_MESSAGE = 500
# What an answer may have besides; `scores` only where they were asked for, the others where the model has them.
_OPTIONAL: dict[str, tuple[type, ...]] = {"scores": (list,), "known": (bool,), "ood_score": (int, float)}


@dataclass(frozen=True, slots=True)
class Classification:
    """What the model's server answered: its predictions, the model, and the optional fields that it gave."""

    predictions: list[Any]
    model: dict[str, Any]
    optional: dict[str, Any]


class EndpointClient:
    """Invokes the endpoint that the settings name; the role's credentials are read from `environ` for each request."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
        self._client = SignedClient(settings.runtime_url, "sagemaker", settings.region, environ)
        self._path = f"/endpoints/{settings.endpoint_name}/invocations"

    def classify(self, image: bytes, *, top_k: int, scores: bool, deadline: Deadline) -> Classification:
        """Send the bytes of an image file as they are; what goes wrong is a ServiceError, in the caller's terms."""
        content_type = f"{_IMAGE_TYPE}; top_k={top_k}" + ("; scores=true" if scores else "")
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        try:
            response, payload = self._client.post(self._path, headers, image, deadline, _MAX_ANSWER_BYTES)
        except TimeoutError as error:
            raise TimedOutError(detail=repr(error)) from error
        except (OSError, http.client.HTTPException) as error:
            raise NotReadyError(detail=f"{self._client.host}: {error!r}") from error
        if payload is None:
            raise ModelFailedError("The model's answer is too long.", detail=f"more than {_MAX_ANSWER_BYTES} bytes")
        if response.status == 200:
            return _classification(payload)
        raise _error_of(response, payload)


def _classification(payload: bytes) -> Classification:
    try:
        document = json.loads(payload, parse_constant=_refuse_constant)
        predictions, model = document["predictions"], document["model"]
        optional = {name: document[name] for name in _OPTIONAL if document.get(name) is not None}
        fit = all(type(value) in _OPTIONAL[name] for name, value in optional.items())
        if not (fit and isinstance(predictions, list) and isinstance(model, dict)):
            raise TypeError("a member is of the wrong type")
        if not 0 <= optional.get("ood_score", 0) < math.inf:  # 1e999 is JSON
            raise ValueError("ood_score is out of range")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        detail = f"{error!r} in {payload[:200]!r}"
        raise ModelFailedError("The model's answer is not understood.", detail=detail) from error
    return Classification(predictions, model, optional)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")  # NaN and the infinities, which JSON does not know


def _error_of(response: http.client.HTTPResponse, payload: bytes) -> ServiceError:
    """Return what an answer of InvokeEndpoint other than 200 means to our caller."""
    status, document = response.status, json_object(payload)
    # AWS's name of an error is in this header, sometimes followed by a colon and an address, or in the JSON body.
    kind = response.getheader("x-amzn-errortype") or str(document.get("__type", ""))
    kind = kind.partition(":")[0].rpartition("#")[2]
    detail = f"InvokeEndpoint answered {status} {kind}: {payload[:1000].decode(errors='replace')}"
    if kind == "ModelError" or status == 424:
        return _model_error(document, detail)
    if kind == "ModelNotReadyException":
        return NotReadyError(detail=detail)
    if kind in _THROTTLING or status == 429:
        return ThrottledError(detail=detail)
    # AWS answers a missing, starting or scaled-to-zero endpoint with a ValidationError. Nothing that a caller sends
    # can cause one, for every header and the size of the body are ours.
    if kind in ("ValidationError", "ValidationException") or status >= 500:
        return NotReadyError(detail=detail)
    # Access denied, expired or unknown keys: the deployment is wrong, and trying again does not help the caller.
    return InternalError(detail=detail)


def _model_error(document: Mapping[str, Any], detail: str) -> ServiceError:
    original_status = document.get("OriginalStatusCode")
    if original_status in (400, 413, 415):
        said = json_object(document.get("OriginalMessage")).get("error")
        if isinstance(said, dict):
            error, message = MODEL_CALLER_ERRORS.get(str(said.get("code"))), said.get("message")
            if error is not None and isinstance(message, str):
                return error(message[:_MAX_MODEL_MESSAGE], detail=detail)
    if original_status == 429:
        return ThrottledError(detail=detail)
    # SageMaker reports what it got no answer to with the status 0: a container that took longer than its 60 seconds,
    # and one that ended meanwhile, with its instance or by itself. The second is worth another try.
    if original_status in (408, 504) or "timed out" in str(document.get("Message") or document.get("message")):
        return TimedOutError(detail=detail)
    if original_status in (0, 502, 503):
        return NotReadyError(detail=detail)
    return ModelFailedError("The model failed on this image.", detail=detail)
