"""An HTTP server of one file that behaves as badly as it is told to."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

from lambda_fakes import fake_server


class FileServer:
    """Serves `content` under every path."""

    def __init__(self, content: bytes) -> None:
        self.url = ""
        self.content, self.etag = content, '"one"'  # the file and its validator; "" for none
        self.ranges = True  # whether it answers Range with 206
        self.honours_if_range = True  # whether it looks at If-Range before it does
        self.headers: dict[str, str] = {}  # further ones of every answer
        # What the next requests get, before it behaves: a status; bytes, which are the whole answer; or ("cut", n), a
        # connection that closes after n bytes of the body.
        self.script: list[Any] = []
        self.requests: list[dict[str, str]] = []  # the headers of all

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(dict(handler.headers))
        action = self.script.pop(0) if self.script else None
        if isinstance(action, bytes):  # nothing but itself, with the connection's end
            handler.close_connection = True
            handler.wfile.write(action)
            return
        size, first = len(self.content), self._first(handler)
        if isinstance(action, int):
            self._begin(handler, action, 0)
        elif first is not None and first >= size:
            self._begin(handler, 416, 0, {"Content-Range": f"bytes */{size}"})
        else:
            body = self.content[first or 0 :]
            place = {} if first is None else {"Content-Range": f"bytes {first}-{size - 1}/{size}"}
            self._begin(handler, 200 if first is None else 206, len(body), {"ETag": self.etag, **place})
            handler.wfile.write(body if action is None else body[: action[1]])
            handler.close_connection = action is not None

    def _begin(
        self, handler: BaseHTTPRequestHandler, status: int, length: int, headers: dict[str, str] | None = None
    ) -> None:
        handler.send_response(status)
        for name, value in {**self.headers, **(headers or {}), "Content-Length": str(length)}.items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()

    def _first(self, handler: BaseHTTPRequestHandler) -> int | None:
        match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if match is None or not self.ranges:
            return None
        if self.honours_if_range and handler.headers.get("If-Range") not in (None, self.etag):
            return None
        return int(match[1])


@contextlib.contextmanager
def serve(content: bytes) -> Iterator[FileServer]:
    server = FileServer(content)
    with fake_server(server.answer) as host:
        server.url = f"http://127.0.0.1:{host.port}/dogs.zip"
        yield server
