"""The one call to AWS: InvokeEndpoint, over a connection that is kept between requests."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from .config import Settings
from .connection import Deadline, DeadlineConnection
from .errors import (
    MODEL_CALLER_ERRORS,
    InternalError,
    ModelFailedError,
    NotReadyError,
    ServiceError,
    ThrottledError,
    TimedOutError,
)

# AWS's media type for an image of any format: the server looks at the bytes, not at what a caller calls them.
_IMAGE_TYPE = "application/x-image"
# Load balancers close idle connections after a minute. An environment that was frozen meanwhile does not hear of it.
_MAX_IDLE_SECONDS = 30.0
_MAX_ANSWER_BYTES = 6 * 1024 * 1024
_MAX_MODEL_MESSAGE = 500
_THROTTLING = frozenset({"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"})


@dataclass(frozen=True, slots=True)
class Classification:
    """What the model's server answered; `scores` is None unless asked for."""

    predictions: list[Any]
    scores: list[float] | None
    model: dict[str, Any]


class EndpointClient:
    """Invokes the endpoint that the settings name; the role's credentials are read from `environ` for each request."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
        url = urlsplit(settings.runtime_url)
        port = url.port or (443 if url.scheme == "https" else 80)
        self._host_header = url.netloc
        self._path = f"{url.path}/endpoints/{settings.endpoint_name}/invocations"
        self._url = f"{url.scheme}://{url.netloc}{self._path}"
        # Loading the certificate authorities takes tens of milliseconds: at start, where Lambda gives a full CPU.
        tls = ssl.create_default_context(cafile=environ.get("AWS_CA_BUNDLE")) if url.scheme == "https" else None
        self._region = settings.region
        self._environ = environ
        self._connection = DeadlineConnection(url.hostname or "", port, Deadline(0), tls)
        self._used_at = 0.0

    def classify(self, image: bytes, *, top_k: int, scores: bool, deadline: Deadline) -> Classification:
        """Send the bytes of an image file as they are; what goes wrong is a ServiceError, in the caller's terms."""
        content_type = f"{_IMAGE_TYPE}; top_k={top_k}" + ("; scores=true" if scores else "")
        # The wall clock, because a frozen environment's monotonic clock may stand still.
        if time.time() - self._used_at > _MAX_IDLE_SECONDS:
            self._connection.close()
        try:
            response = self._post(image, self._signed_headers(image, content_type), deadline)
            payload = response.read(_MAX_ANSWER_BYTES + 1)
        except TimeoutError as error:
            self._connection.close()
            raise TimedOutError(detail=repr(error)) from error
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise NotReadyError(detail=f"{self._host_header}: {error!r}") from error
        if len(payload) > _MAX_ANSWER_BYTES:
            self._connection.close()
            raise ModelFailedError("The model's answer is too long.", detail=f"more than {_MAX_ANSWER_BYTES} bytes")
        self._used_at = time.time()
        if response.status == 200:
            return _classification(payload)
        raise _error_of(response, payload)

    def _post(self, body: bytes, headers: dict[str, str], deadline: Deadline) -> http.client.HTTPResponse:
        connection = self._connection
        connection.deadline = deadline
        if connection.sock is not None:
            try:
                connection.request("POST", self._path, body, headers)
                return connection.getresponse()
            except (ConnectionError, ssl.SSLError):
                connection.close()  # as the other side did while it lay idle, so it has not seen the request
        try:
            connection.connect()
        except TimeoutError as error:
            deadline.remaining()
            raise ConnectionError("it takes too long to connect") from error
        connection.request("POST", self._path, body, headers)
        return connection.getresponse()

    def _signed_headers(self, body: bytes, content_type: str) -> dict[str, str]:
        access_key_id, secret = (self._environ.get(f"AWS_{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
        if not access_key_id or not secret:
            raise InternalError(detail="there are no AWS credentials in the environment")
        headers = {"Host": self._host_header, "Content-Type": content_type, "Accept": "application/json"}
        request = AWSRequest("POST", self._url, headers=headers, data=body)
        credentials = ReadOnlyCredentials(access_key_id, secret, self._environ.get("AWS_SESSION_TOKEN") or None)
        SigV4Auth(credentials, "sagemaker", self._region).add_auth(request)
        return dict(request.headers.items())


def _classification(payload: bytes) -> Classification:
    try:
        document = json.loads(payload, parse_constant=_refuse_constant)
        predictions, model, scores = document["predictions"], document["model"], document.get("scores")
        if not (isinstance(predictions, list) and isinstance(model, dict) and isinstance(scores, list | None)):
            raise TypeError("a member is of the wrong type")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        detail = f"{error!r} in {payload[:200]!r}"
        raise ModelFailedError("The model's answer is not understood.", detail=detail) from error
    return Classification(predictions, scores, model)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")  # NaN and the infinities, which JSON does not know


def _error_of(response: http.client.HTTPResponse, payload: bytes) -> ServiceError:
    """Return what an answer of InvokeEndpoint other than 200 means to our caller."""
    status, document = response.status, _json_object(payload)
    # AWS's error type is in this header, sometimes followed by a colon and an address, or in the JSON body.
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
        said = _json_object(document.get("OriginalMessage")).get("error")
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


def _json_object(text: Any) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
