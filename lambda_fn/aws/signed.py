"""Calls of AWS, signed, over a connection that is kept between requests."""

from __future__ import annotations

import functools
import http.client
import json
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from ..connection import Deadline, DeadlineConnection
from ..errors import InternalError

# Load balancers close idle connections after a minute. An environment that was frozen meanwhile does not hear of it.
_MAX_IDLE_SECONDS = 30.0


class SignedClient:
    """Posts to one service of AWS; the role's credentials are read from `environ` for each request."""

    def __init__(self, base_url: str, service: str, region: str, environ: Mapping[str, str]) -> None:
        url = urlsplit(base_url)
        self.host = url.netloc
        self._base_path = url.path
        self._base_url = base_url
        tls = _tls(environ.get("AWS_CA_BUNDLE")) if url.scheme == "https" else None
        self._service, self._region, self._environ = service, region, environ
        port = url.port or (443 if url.scheme == "https" else 80)
        self._connection = DeadlineConnection(url.hostname or "", port, Deadline(0), tls)
        self._used_at = 0.0

    def post(
        self, path: str, headers: Mapping[str, str], body: bytes, deadline: Deadline, most: int
    ) -> tuple[http.client.HTTPResponse, bytes | None]:
        """Return the response and its body, None if that has more than `most` bytes; raise as ``http.client`` does."""
        signed = self._signed(path, headers, body)
        # The wall clock, because a frozen environment's monotonic clock may stand still.
        if time.time() - self._used_at > _MAX_IDLE_SECONDS:
            self._connection.close()
        try:
            response = self._send(self._base_path + path, body, signed, deadline)
            payload = response.read(most + 1)
            if len(payload) > most:
                self._connection.close()
                return response, None
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        self._used_at = time.time()
        return response, payload

    def _send(self, path: str, body: bytes, headers: dict[str, str], deadline: Deadline) -> http.client.HTTPResponse:
        connection = self._connection
        connection.deadline = deadline
        if connection.sock is not None:
            try:
                connection.request("POST", path, body, headers)
                return connection.getresponse()
            except (ConnectionError, ssl.SSLError):
                connection.close()  # as the other side did while it lay idle, so it has not seen the request
        try:
            connection.connect()
        except TimeoutError as error:
            deadline.remaining()
            raise ConnectionError("it takes too long to connect") from error
        connection.request("POST", path, body, headers)
        return connection.getresponse()

    def _signed(self, path: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        access_key_id, secret = (self._environ.get(f"AWS_{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
        if not access_key_id or not secret:
            raise InternalError(detail="there are no AWS credentials in the environment")
        request = AWSRequest("POST", self._base_url + path, headers={"Host": self.host, **headers}, data=body)
        credentials = ReadOnlyCredentials(access_key_id, secret, self._environ.get("AWS_SESSION_TOKEN") or None)
        SigV4Auth(credentials, self._service, self._region).add_auth(request)
        return dict(request.headers.items())


@functools.cache
def _tls(authorities: str | None) -> ssl.SSLContext:
    # Loading the authorities takes tens of milliseconds: once, and at start, where Lambda gives a full CPU.
    return ssl.create_default_context(cafile=authorities)


def json_object(text: Any) -> dict[str, Any]:
    """Return a JSON object, an empty one if the text is none."""
    try:
        document = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
