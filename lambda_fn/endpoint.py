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
_CONNECT_SECONDS = 2.0
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
        self._host = url.hostname or ""
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._host_header = url.netloc
        self._url = f"{settings.runtime_url}/endpoints/{settings.endpoint_name}/invocations"
        self._path = f"{url.path}/endpoints/{settings.endpoint_name}/invocations"
        # Loading the certificate authorities takes tens of milliseconds: at start, where Lambda gives a full CPU.
        self._tls = ssl.create_default_context(cafile=environ.get("AWS_CA_BUNDLE")) if url.scheme == "https" else None
        self._region = settings.region
        self._environ = environ
        self._connection: DeadlineConnection | None = None
        self._used_at = 0.0

    def classify(self, image: bytes, *, top_k: int, scores: bool, deadline: Deadline) -> Classification:
        """Send the bytes of an image file as they are; what goes wrong is a ServiceError, in the caller's terms."""
        content_type = f"{_IMAGE_TYPE}; top_k={top_k}" + ("; scores=true" if scores else "")
        status, headers, payload = self._post(image, content_type, deadline)
        if status == 200:
            return _classification(payload)
        raise error_of(status, headers, payload)

    def _post(self, body: bytes, content_type: str, deadline: Deadline) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"Host": self._host_header, "Content-Type": content_type, "Accept": "application/json"}
        request = AWSRequest("POST", self._url, headers=headers, data=body)
        SigV4Auth(self._credentials(), "sagemaker", self._region).add_auth(request)
        headers = dict(request.headers.items())
        try:
            connection, reused = self._open(deadline)
            try:
                connection.request("POST", self._path, body, headers)
                response = connection.getresponse()
            except (ConnectionError, ssl.SSLError):
                if not reused:
                    raise
                # The other side had closed the connection while it lay idle, so it has not seen the request.
                self._close()
                connection, _ = self._open(deadline)
                connection.request("POST", self._path, body, headers)
                response = connection.getresponse()
            payload = response.read(_MAX_ANSWER_BYTES + 1)
        except TimeoutError as error:
            self._close()
            raise TimedOutError(detail=repr(error)) from error
        except (OSError, http.client.HTTPException) as error:
            self._close()
            raise NotReadyError(detail=repr(error)) from error
        if len(payload) > _MAX_ANSWER_BYTES:
            self._close()
            raise ModelFailedError("The model's answer is too long.", detail=f"more than {_MAX_ANSWER_BYTES} bytes")
        self._used_at = time.time()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, payload

    def _credentials(self) -> ReadOnlyCredentials:
        access_key_id, secret = (self._environ.get(f"AWS_{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
        if not access_key_id or not secret:
            raise InternalError(detail="there are no AWS credentials in the environment")
        return ReadOnlyCredentials(access_key_id, secret, self._environ.get("AWS_SESSION_TOKEN") or None)

    def _open(self, deadline: Deadline) -> tuple[DeadlineConnection, bool]:
        """Return a connection and whether it has served before; a failed attempt to connect is repeated once."""
        if self._connection is not None and self._connection.sock is not None:
            # The wall clock, because a frozen environment's monotonic clock may stand still.
            if time.time() - self._used_at < _MAX_IDLE_SECONDS:
                self._connection.deadline = deadline
                return self._connection, True
            self._close()
        for attempt in (1, 2):
            deadline.remaining()
            try:
                connection = DeadlineConnection(self._host, self._port, deadline.within(_CONNECT_SECONDS), self._tls)
                connection.connect()
            except OSError as error:
                if attempt == 2:
                    raise NotReadyError(detail=f"cannot connect to {self._host}:{self._port}: {error!r}") from error
            else:
                break
        connection.deadline = deadline
        self._connection = connection
        return connection, False

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _classification(payload: bytes) -> Classification:
    try:
        document = json.loads(payload, parse_constant=_refuse_constant)
        predictions, model, scores = document["predictions"], document["model"], document.get("scores")
        if not (isinstance(predictions, list) and isinstance(model, dict) and isinstance(scores, list | None)):
            raise TypeError("a member is of the wrong type")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFailedError(
            "The model's answer is not understood.", detail=f"{error!r} in {payload[:200]!r}"
        ) from error
    return Classification(predictions, scores, model)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")  # NaN and the infinities, which JSON does not know


def error_of(status: int, headers: Mapping[str, str], payload: bytes) -> ServiceError:
    """Return what an answer of InvokeEndpoint other than 200 means to our caller; header names are in lower case."""
    document = _json_object(payload)
    # AWS's error type is in this header, sometimes followed by a colon and an address, or in the JSON body.
    kind = headers.get("x-amzn-errortype") or str(document.get("__type") or document.get("code") or "")
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
    if original_status == 503:
        return NotReadyError(detail=detail)
    # SageMaker reports a container that did not answer within its 60 seconds with the status 0.
    if original_status in (0, 408, 504) or "timed out" in str(document.get("Message") or document.get("message")):
        return TimedOutError(detail=detail)
    return ModelFailedError("The model failed on this image.", detail=detail)


def _json_object(text: Any) -> dict[str, Any]:
    if not isinstance(text, str | bytes):
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
