"""The function behind its URL, as a WSGI application: what AWS does between HTTP and the function's events."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host"


def function_url(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., Iterable[bytes]]:
    """Pass on what carries `AUTHORIZATION`, in payload format 2.0."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = {name[5:].replace("_", "-").lower(): environ[name] for name in environ if name.startswith("HTTP_")}
        if content_type := environ.get("CONTENT_TYPE"):
            headers["content-type"] = content_type
        reply: dict[str, Any] = {"statusCode": 403, "headers": {"content-type": "application/json"}}
        if headers.get("authorization") != AUTHORIZATION:
            reply["body"] = json.dumps({"Message": "Forbidden"})
        else:
            query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            reply = answer(
                {
                    "version": "2.0",
                    "rawPath": environ["PATH_INFO"],
                    "rawQueryString": environ["QUERY_STRING"],
                    "queryStringParameters": {name: ",".join(values) for name, values in query.items()},
                    "headers": headers,
                    "requestContext": {"http": {"method": environ["REQUEST_METHOD"], "path": environ["PATH_INFO"]}},
                    "body": base64.b64encode(body).decode(),
                    "isBase64Encoded": True,
                }
            )
        start_response(f"{reply['statusCode']} -", [*reply["headers"].items()])
        return [reply["body"].encode()]

    return application
