"""The error that the caller of an AWS API meets."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

Response = tuple[int, dict[str, str], bytes]

CONTENT_TYPE = "application/x-amz-json-1.1"


class ServiceError(Exception):
    """An error that the caller of an AWS API meets.

    `code` is AWS's name of it; `fields` are further members of its shape, such as ``OriginalStatusCode``.
    """

    def __init__(self, code: str, message: str, status: int = 400, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.fields = dict(fields or {})

    def response(self) -> Response:
        """The error as botocore reads it from a JSON service."""
        body = {"__type": self.code, "message": self.message, **self.fields}
        headers = {"Content-Type": CONTENT_TYPE, "x-amzn-errortype": self.code, "x-amzn-requestid": str(uuid.uuid4())}
        return self.status, headers, json.dumps(body).encode()


def refuse(wrong: object, message: str) -> None:
    """Answer a request with AWS's ValidationException where something is wrong with it."""
    if wrong:
        raise ServiceError("ValidationException", message)
