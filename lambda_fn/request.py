"""What a caller asks for: an event's HTTP request or bare document, and in it an image and what to answer about it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import BadRequestError, ImageTooLargeError, UnsupportedEventError, UnsupportedMediaTypeError
from .image_url import ImageUrl, parse_image_url

DEFAULT_TOP_K = 5
LARGEST_TOP_K = 1000
_BODY_KEYS = ("image", "scores", "top_k", "url")
_QUERY_KEYS = ("scores", "top_k")
# Types that say nothing about the format, besides none at all; the last one is of the SageMaker SDK's DataSerializer.
_OPAQUE_TYPES = ("", "application/octet-stream", "application/x-image", "file-path/raw-bytes")
_JSON_START = re.compile(rb"(\xef\xbb\xbf)?\s*[\[{]")
_HOW = 'send an image as the body with "Content-Type: image/jpeg" (or image/png, …), or JSON with "url" or "image"'


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """An HTTP request: the method in upper case, header names in lower case, the body as the caller sent it.

    `caller` is the ARN of who signed it, as AWS says; "" when nobody did.
    """

    method: str
    path: str
    headers: dict[str, str]
    query: dict[str, str]
    body: bytes
    caller: str = ""

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> HttpRequest:
        """Read an event in payload format 2.0; raise BadRequestError when it is not one."""
        try:
            body = event.get("body") or ""
            authorizer = event["requestContext"].get("authorizer") or {}
            return cls(
                method=event["requestContext"]["http"]["method"].upper().encode("ascii").decode(),
                path=str(event.get("rawPath") or "/"),
                headers={name.lower(): str(value) for name, value in (event.get("headers") or {}).items()},
                query={name: str(value) for name, value in (event.get("queryStringParameters") or {}).items()},
                body=_from_base64(body) if event.get("isBase64Encoded") is True else body.encode(),
                caller=str((authorizer.get("iam") or {}).get("userArn") or ""),
            )
        except (AttributeError, KeyError, TypeError, ValueError):  # a direct invocation may send anything
            raise BadRequestError("The event is not an HTTP request in payload format 2.0.") from None


@dataclass(frozen=True, slots=True)
class ClassificationRequest:
    """A checked request; `source` says how the image arrives: ``body``, ``base64`` or ``url``."""

    image: bytes | ImageUrl
    source: str
    top_k: int = DEFAULT_TOP_K
    scores: bool = False


def from_http(request: HttpRequest, max_image_bytes: int) -> ClassificationRequest:
    """Read the body of a ``POST /`` and its query; a ServiceError says why it is no request for a classification."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = media_type == "application/json" or media_type.endswith("+json")
    # Image types with a suffix, image/svg+xml for one, are the model's server's to refuse.
    if not is_json and media_type not in _OPAQUE_TYPES and not media_type.startswith("image/"):
        raise UnsupportedMediaTypeError(f"Content-Type {media_type[:100]!r} is not understood; {_HOW}.")
    if not request.body:
        raise BadRequestError(f"The body is empty; {_HOW}.")
    if media_type in _OPAQUE_TYPES and _JSON_START.match(request.body):
        problem = f"is {media_type!r}" if media_type else "is missing"
        raise UnsupportedMediaTypeError(
            f'The body looks like JSON, but its Content-Type {problem}; send it with "Content-Type: application/json".'
        )
    query = _query_options(request.query)
    if not is_json:
        return _request(_checked_size(request.body, max_image_bytes), "body", query)
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError):
        raise BadRequestError("The body is not valid JSON, although its Content-Type says so.") from None
    return from_document(document, max_image_bytes, query)


def checked_event(event: object) -> dict[str, Any]:
    """Return an event that is an HTTP request or a document for this function; raise UnsupportedEventError otherwise.

    Queues, topics, schedules and the like send events of many forms, none of which has a member of such a document.
    """
    # A destination of asynchronous calls is sent a record with a context of its own and the payload of the call.
    if isinstance(event, dict) and "requestPayload" not in event and event.keys() & {"requestContext", *_BODY_KEYS}:
        return event
    what = (
        f"with {_listed([*event][:5]) or 'nothing'}"
        if isinstance(event, dict)
        else f"of the type {type(event).__name__}"
    )
    raise UnsupportedEventError(
        f"An event {what} is not taken, as those of SQS, SNS, S3 and EventBridge are not: send an HTTP request to the "
        'function\'s URL, or a document with "url" or "image".'
    )


def from_document(
    document: object, max_image_bytes: int, query: Mapping[str, object] | None = None
) -> ClassificationRequest:
    """Read a JSON document, the body of a request or the event of a direct invocation; `query` has further options."""
    if not isinstance(document, dict):
        raise BadRequestError('The JSON must be an object such as {"url": "https://…"} or {"image": "<base64>"}.')
    _refuse_unknown(document, _BODY_KEYS, "key")
    if ("url" in document) == ("image" in document):
        raise BadRequestError('Give either "url" or "image", one of them and not both.')
    options = dict(query or {})
    twice = options.keys() & document.keys()
    if twice:
        raise BadRequestError(f"{_listed(twice)} is given twice: in the query and in the body.")
    options |= document
    if "url" in document:
        return _request(parse_image_url(document["url"]), "url", options)
    return _request(_inline_image(document["image"], max_image_bytes), "base64", options)


def _request(image: bytes | ImageUrl, source: str, options: Mapping[str, object]) -> ClassificationRequest:
    top_k, scores = options.get("top_k", DEFAULT_TOP_K), options.get("scores", False)
    if isinstance(top_k, float) and top_k.is_integer():  # JSON has one kind of number
        top_k = int(top_k)
    # bool is an int to Python, not to a caller.
    if not isinstance(top_k, int) or isinstance(top_k, bool) or not 1 <= top_k <= LARGEST_TOP_K:
        raise BadRequestError(f'"top_k" must be a whole number from 1 to {LARGEST_TOP_K}.')
    if not isinstance(scores, bool):
        raise BadRequestError('"scores" must be true or false.')
    return ClassificationRequest(image, source, top_k, scores)


def _query_options(query: Mapping[str, str]) -> dict[str, object]:
    # A presigned URL carries its signature in the query.
    options: dict[str, object] = {name: text for name, text in query.items() if not name.lower().startswith("x-amz-")}
    _refuse_unknown(options, _QUERY_KEYS, "query parameter")
    top_k, scores = query.get("top_k", ""), query.get("scores", "").lower()
    if top_k.isascii() and top_k.isdecimal() and len(top_k) < 10:
        options["top_k"] = int(top_k)
    if scores in ("true", "false"):
        options["scores"] = scores == "true"
    return options


def _inline_image(text: object, max_image_bytes: int) -> bytes:
    if not isinstance(text, str) or not text or text.startswith("data:"):
        raise BadRequestError('"image" must be the image file in base64, without "data:…;base64," in front.')
    try:
        decoded = _from_base64(text)
    except ValueError:
        decoded = b""
    if not decoded:
        raise BadRequestError('"image" is not valid base64.')
    return _checked_size(decoded, max_image_bytes)


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # again without line breaks: taking them out costs as much as decoding, and Lambda sends none
        return base64.b64decode("".join(text.split()), validate=True)


def _checked_size(image: bytes, limit: int) -> bytes:
    if len(image) > limit:
        raise ImageTooLargeError.over(limit, len(image))
    return image


def _refuse_unknown(given: Mapping[str, object], allowed: tuple[str, ...], what: str) -> None:
    unknown = sorted(given.keys() - set(allowed))
    if unknown:
        raise BadRequestError(f"Unknown {what} {_listed(unknown[:3])}; allowed are {_listed(allowed)}.")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(json.dumps(name[:40]) for name in sorted(names))
