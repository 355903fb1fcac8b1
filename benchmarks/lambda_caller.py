"""A stand-in for Lambda in a fresh process: loads a handler, calls it with images, and prints the milliseconds.

`python -S lambda_caller.py MODULE CALLS SIZE…` prints as its last line a JSON object: `init_ms`, what loading the
module took; and for each size of an image in bytes `calls_ms`, of the calls, and `exchange_ms`, what it takes to send
so many bytes to the endpoint and to get its answer, without any function.
"""

# Nothing else before the handler is loaded: a module that is here already would cost it nothing.
from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    module, calls, *sizes = sys.argv[1:]
    began = time.perf_counter()
    handler = getattr(__import__(module, fromlist=["handler"]), "handler")  # noqa: B009 - the module's name is data
    init_ms = (time.perf_counter() - began) * 1000

    import json

    result = {"init_ms": init_ms, "sizes": {size: measure(handler, int(size), int(calls)) for size in sizes}}
    print("\n" + json.dumps(result))


def measure(handler: Any, size: int, calls: int) -> dict[str, list[float]]:
    """Call the handler and, in turns with it, the endpoint itself."""
    import base64
    import http.client
    import json
    import os
    import socket
    from urllib.parse import urlsplit

    image = os.urandom(size)
    event = {
        "version": "2.0",
        "rawPath": "/",
        "rawQueryString": "",
        "headers": {"content-type": "image/jpeg"},
        "requestContext": {"http": {"method": "POST", "path": "/"}},
        "body": base64.b64encode(image).decode(),
        "isBase64Encoded": True,
    }
    url = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    calls_ms, exchange_ms = [], []
    head = f"POST /bare HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/x-image\r\nContent-Length: {size}"
    request = head.encode() + b"\r\n\r\n" + image
    with socket.create_connection((url.hostname, url.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(calls + 2):  # two to warm up: connections, caches
            began = time.perf_counter()
            answer = handler(event, Context())
            called = time.perf_counter()
            connection.sendall(request)
            with http.client.HTTPResponse(connection, method="POST") as response:
                response.begin()
                response.read()
            ended = time.perf_counter()
            if answer["statusCode"] != 200 or not json.loads(answer["body"])["predictions"]:
                sys.exit(f"{handler.__module__} answered {answer}")
            if index >= 2:
                calls_ms.append((called - began) * 1000)
                exchange_ms.append((ended - called) * 1000)
    return {"calls_ms": calls_ms, "exchange_ms": exchange_ms}


class Context:
    """What a handler asks of Lambda."""

    aws_request_id = "8f507cfc-0000-4000-8000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return 30_000


if __name__ == "__main__":
    main()
