"""An HTTP server of one file that behaves as badly as it is told to."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer(ThreadingHTTPServer):
    """Serves `content` under every path."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.etag = content, '"one"'  # the file and its validator; "" for none
        self.ranges = True  # whether it answers Range with 206
        self.honours_if_range = True  # whether it looks at If-Range before it does
        self.headers: dict[str, str] = {}  # further ones of every answer
        # What the next requests get, before it behaves: a status; bytes, which are the whole answer; or ("cut", n), a
        # connection that closes after n bytes of the body.
        self.script: list[Any] = []
        self.requests: list[dict[str, str]] = []  # the headers of all

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/dogs.zip"

    def handle_error(self, *_: Any) -> None:
        """Clients that go away are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers))
        action = server.script.pop(0) if server.script else None
        if isinstance(action, bytes):  # nothing but itself, with the connection's end
            self.close_connection = True
            self.wfile.write(action)
            return
        size, first = len(server.content), self._first()
        if isinstance(action, int):
            self._begin(action, 0)
        elif first is not None and first >= size:
            self._begin(416, 0, {"Content-Range": f"bytes */{size}"})
        else:
            body = server.content[first or 0 :]
            place = {} if first is None else {"Content-Range": f"bytes {first}-{size - 1}/{size}"}
            self._begin(200 if first is None else 206, len(body), {"ETag": server.etag, **place})
            self.wfile.write(body if action is None else body[: action[1]])
            self.close_connection = action is not None

    def _begin(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**self.server.headers, **(headers or {}), "Content-Length": str(length)}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def _first(self) -> int | None:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None or not self.server.ranges:
            return None
        if self.server.honours_if_range and self.headers.get("If-Range") not in (None, self.server.etag):
            return None
        return int(match[1])

    def log_message(self, *_: Any) -> None:
        """Keep the tests' output clean."""


@contextlib.contextmanager
def serve(content: bytes) -> Iterator[FileServer]:
    with FileServer(content) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()
