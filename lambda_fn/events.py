"""The events that Lambda hands over: HTTP requests to the function URL, and bare documents.

Nothing about an event is taken for granted: a caller may send anything.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import BadRequestError


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """An HTTP request: the method in upper case, header names in lower case, the body as the caller sent it."""

    method: str
    path: str
    headers: dict[str, str]
    query: dict[str, str]
    body: bytes


def is_http(event: object) -> bool:
    """Tell an HTTP request from a bare document such as ``{"url": "https://…"}``."""
    return isinstance(event, dict) and "requestContext" in event


def http_request(event: Mapping[str, Any]) -> HttpRequest:
    """Read an event in payload format 2.0; raise BadRequestError when it is not one."""
    context = event["requestContext"]
    http = context.get("http") if isinstance(context, dict) else None
    method = http.get("method") if isinstance(http, dict) else None
    path = event.get("rawPath") or "/"
    if not isinstance(method, str) or not isinstance(path, str):
        raise BadRequestError("The event is not an HTTP request in payload format 2.0.")
    return HttpRequest(
        method=method.upper(),
        path=path,
        headers=_strings(event.get("headers"), lower=True),
        query=_strings(event.get("queryStringParameters")),
        body=_body(event.get("body"), event.get("isBase64Encoded")),
    )


def decode_base64(text: str) -> bytes | None:
    """Return the bytes that base64 text stands for, or None when it is not base64; line breaks are allowed."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    try:  # again without white space: taking it out costs as much as decoding, and bodies from Lambda have none
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        return None


def _strings(mapping: object, *, lower: bool = False) -> dict[str, str]:
    if mapping is None:
        return {}
    if not isinstance(mapping, dict) or not all(isinstance(v, str) for pair in mapping.items() for v in pair):
        raise BadRequestError("Headers and query parameters must be maps of strings.")
    return {(name.lower() if lower else name): value for name, value in mapping.items()}


def _body(body: object, is_base64: object) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        if is_base64 is True:
            decoded = decode_base64(body)
            if decoded is not None:
                return decoded
        else:
            try:
                return body.encode()
            except UnicodeEncodeError:
                pass
    raise BadRequestError("The event's body cannot be read.")
