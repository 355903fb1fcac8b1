"""An HTTP server of one file that behaves as badly as it is told to."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer(ThreadingHTTPServer):
    """Serves `content` under every path.

    Attributes
    ----------
    content, etag, last_modified
        The file and its validators; "" for none.
    ranges, honours_if_range
        Whether it answers Range with 206, and whether it looks at If-Range before it does.
    range_limit
        The longest part, in bytes, that it sends of a Range without an end.
    script
        What to do with the next requests, one entry each, before it behaves: an int is a status; bytes are the whole
        answer; ("cut", n) closes the connection after n bytes of the body, ("reset", n) breaks it, ("stall", n) sends
        no more until `released`.
    requests
        The headers of all requests.
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.etag, self.last_modified = content, '"one"', "Sat, 01 Jan 2022 00:00:00 GMT"
        self.ranges = self.honours_if_range = True
        self.range_limit: int | None = None
        self.headers: dict[str, str] = {}
        self.script: list[Any] = []
        self.requests: list[dict[str, str]] = []
        self.stalled, self.released = threading.Event(), threading.Event()

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
        if isinstance(action, int):
            self.send_response(action)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first = self._first()
        if first is not None and first >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        last = len(server.content)
        if first is not None and server.range_limit is not None:
            last = min(last, first + server.range_limit)
        if isinstance(action, bytes):  # nothing but itself, with the connection's end
            self.close_connection = True
            self.wfile.write(action)
            return
        body = server.content[first or 0 : last]
        self.send_response(200 if first is None else 206)
        if first is not None:
            self.send_header("Content-Range", f"bytes {first}-{last - 1}/{len(server.content)}")
        for name, value in (("ETag", server.etag), ("Last-Modified", server.last_modified), *server.headers.items()):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if action is None:
            self.wfile.write(body)
            return
        kind, count = action
        self.wfile.write(body[:count])
        self.wfile.flush()
        self.close_connection = True
        if kind == "stall":
            server.stalled.set()
            server.released.wait(30)
        elif kind == "reset":  # a zero linger time makes the kernel send RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.wfile.close()
            self.connection.close()

    def _first(self) -> int | None:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None or not self.server.ranges:
            return None
        expected = self.headers.get("If-Range")
        if self.server.honours_if_range and expected not in (None, self.server.etag, self.server.last_modified):
            return None
        return int(match[1])

    def log_message(self, *_: Any) -> None:
        """Keep the tests' output clean."""


@contextlib.contextmanager
def serve(content: bytes) -> Iterator[FileServer]:
    """Run a `FileServer` on a free port of the loopback interface."""
    server = FileServer(content)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
