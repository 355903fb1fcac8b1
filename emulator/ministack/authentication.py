"""Nobody is let in unasked.

MiniStack takes ``test``, every account number, and the administrator's own key for the account's root user without
looking at the signature, and serves some requests that carry none. Here, each of those has to be signed with the
administrator's secret, and a request without a signature gets as far as AWS would let it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import Response

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

#: MiniStack's own pages, which ask nobody who they are: any web site could have a browser post a reset.
_ADMINISTRATION = ("/_ministack/", "/_localstack/", "/_aws/ses", "/_aws/sqs")
#: Those of them whose address is known to nobody but the one it was given to, as AWS's counterpart is.
_SECRET_ADDRESSES = ("/_ministack/cfn-response/", "/_ministack/cfn-signal/")
#: Data planes that may be public; MiniStack asks their configuration.
_PUBLIC = ("/_aws/lambda-url/", "/_aws/execute-api/")
_S3_CONTROL = "/v20180820/"
#: A query parameter of each form of a presigned request.
_QUERY_SIGNATURES = frozenset({"X-Amz-Signature", "x-amz-signature", "AWSAccessKeyId"})


def install() -> None:
    """Have MiniStack verify the signatures of the root user, who has one key only."""
    from ministack.core import iam_evaluator

    # No key at all is somebody anonymous: MiniStack takes that for root as well, and asks the bucket's policy or the
    # URL's configuration instead; `gate` keeps all other anonymous requests away.
    iam_evaluator.is_root_access_key = lambda key: not key or key == os.environ["AWS_ACCESS_KEY_ID"]
    # Asked where a signature is to be verified or not: it is.
    iam_evaluator._is_root_key = lambda key: False


def gate(inner: ASGIApp) -> ASGIApp:
    """Keep away what MiniStack would answer without asking who it is."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (refusal := _refusal(scope)):
            await refusal(scope, receive, send)
        elif scope["type"] == "websocket":  # none of what is served here needs one
            await send({"type": "websocket.close", "code": 1008})
        else:
            await inner(scope, receive, send)

    return app


def _refusal(scope: Any) -> Response | None:
    path: str = scope["path"]
    if path.startswith(_SECRET_ADDRESSES):
        return None
    if path.startswith(_ADMINISTRATION):
        return Response(status_code=404)
    if path.startswith(_PUBLIC) or scope["method"] == "OPTIONS":
        return None
    authorization = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    if authorization is None:
        # Presigned, or an object of a public bucket: MiniStack verifies the one and asks the other's policy.
        public_object = scope["method"] in ("GET", "HEAD") and path.strip("/").count("/") >= 1
        if _presigned(scope) or (public_object and not path.startswith(_S3_CONTROL)):
            return None
    elif authorization.startswith(b"AWS"):
        return None  # whether the signature is right, MiniStack finds out
    body = json.dumps({"__type": "MissingAuthenticationTokenException", "message": "Missing Authentication Token"})
    return Response(body, 403, {"x-amzn-errortype": "MissingAuthenticationTokenException"}, "application/json")


def _presigned(scope: Any) -> bool:
    return not _QUERY_SIGNATURES.isdisjoint(parse_qs(scope["query_string"].decode("latin-1")))
