"""A small HTTP/1.1 client for model servers on this machine: kept-alive connections, as little work as possible.

Every invocation passes through here, so it is a bare `asyncio.Protocol`: half the latency and a third of the CPU time
of aiohttp's client for a picture-sized body.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

_MAX_HEAD_BYTES = 64 * 1024
#: Of a line between chunks, and of what surrounds an answer's body in all: head, sizes of chunks, trailers.
_MAX_LINE_BYTES = 4096
_MAX_FRAMING_BYTES = 8 * 1024 * 1024
#: What `int` takes besides (signs, spaces, underscores, "0x") is not HTTP.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_LENGTH = re.compile("[0-9]{1,18}")
_FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding"})


class ServerUnreachable(Exception):
    """No byte of the request was acted upon: nobody listens, or a kept-alive connection had just been closed."""


class ServerFailed(Exception):
    """The connection broke, or what came back was not an HTTP answer, after the request had been sent."""


@dataclass(frozen=True)
class HttpAnswer:
    """What a server answered; the names of `headers` are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


class ConnectionPool:
    """Kept-alive connections to one port of the loopback interface; to be used from one event loop."""

    def __init__(self, port: int, max_body_bytes: int) -> None:
        self.port = port
        self._max_body_bytes = max_body_bytes
        self._idle: list[_Connection] = []

    async def post(self, path: str, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        """Send one request and await the whole answer; a cancelled call closes its connection.

        Raises
        ------
        ServerUnreachable, ServerFailed
        """
        lines = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{self.port}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        sent = False
        connection = self._take_idle()
        if connection is not None:
            try:
                return await self._exchange(connection, head, body)
            except ServerUnreachable:
                # Closed while it was idle, most likely. But the request may as well have killed the server: it is
                # sent once more and to this server only, or one bad request could take down a whole fleet.
                sent = True
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self._max_body_bytes), "127.0.0.1", self.port
            )
        except OSError as error:
            if sent:
                raise ServerFailed("the connection was closed before the answer came") from None
            raise ServerUnreachable(str(error)) from None
        return await self._exchange(connection, head, body)

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        return None

    async def _exchange(self, connection: _Connection, head: bytes, body: bytes) -> HttpAnswer:
        try:
            answer = await connection.exchange(head, body)
        except BaseException:
            connection.close()
            raise
        if connection.open:
            self._idle.append(connection)
        return answer


class _Connection(asyncio.Protocol):
    """One connection; carries one exchange at a time."""

    def __init__(self, max_body_bytes: int) -> None:
        self.open = False
        self._max_body_bytes = max_body_bytes
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._used = False
        self._reset()

    def _reset(self) -> None:
        self._buffer = bytearray()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body: bytearray | None = None
        self._remaining: int | None = None  # bytes of the body, or of the chunk, still to come
        self._chunked = False
        self._keep_alive = True
        self._received = 0

    async def exchange(self, head: bytes, body: bytes) -> HttpAnswer:
        assert self._transport is not None
        self._reset()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines([head, body])
        try:
            answer = await self._answer
        finally:
            self._answer = None
        self._used = True
        if not self._keep_alive:
            self.close()
        return answer

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.open = True

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._body is not None and self._remaining is None and not self._chunked and error is None:
            self._finish()  # a body without a length ends with the connection
        elif self._used and not self._buffer and self._body is None:
            self._fail(ServerUnreachable("the connection was closed while it was idle"))
        else:
            self._fail(ServerFailed("the connection was closed before the answer was complete"))

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.close()  # nobody asked: whatever it is, it must not become the answer to the next request
            return
        self._buffer += data
        self._received += len(data)
        try:
            self._check_size(self._received - _MAX_FRAMING_BYTES)
            if self._body is None and not self._read_head():
                return
            if self._chunked:
                self._read_chunks()
            else:
                self._read_plain()
        except (ValueError, LookupError):
            self._fail(ServerFailed("the answer was not HTTP"))
            self.close()

    def _read_head(self) -> bool:
        """Parse status and headers; False while they are incomplete."""
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            status_line, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
            del self._buffer[: end + 4]
            version, status = status_line.split(" ", 2)[:2]
            if not version.startswith("HTTP/1."):
                raise ValueError(version)
            self._status = int(status)
            if self._status >= 200:
                self._begin_body(version, lines)
                return True
        if len(self._buffer) > _MAX_HEAD_BYTES:
            raise ValueError("too many headers")
        return False

    def _begin_body(self, version: str, lines: list[str]) -> None:
        for name, _, value in (line.partition(":") for line in lines):
            name, value = name.strip().lower(), value.strip()
            if name in _FRAMING_HEADERS and self._headers.keys() & _FRAMING_HEADERS:
                raise ValueError("the body's length is said more than once")
            self._headers[name] = value
        self._body = bytearray()
        connection = self._headers.get("connection", "").lower()
        self._keep_alive = connection != "close" and (version != "HTTP/1.0" or connection == "keep-alive")
        if "transfer-encoding" in self._headers:
            if self._headers["transfer-encoding"].lower() != "chunked":
                raise ValueError("unknown transfer encoding")
            self._chunked = True
        elif self._status in (204, 304):
            self._remaining = 0
        elif "content-length" in self._headers:
            if not _LENGTH.fullmatch(self._headers["content-length"]):
                raise ValueError("the length is no number")
            self._remaining = int(self._headers["content-length"])
            self._check_size(self._remaining)
        else:
            self._keep_alive = False

    def _read_plain(self) -> None:
        assert self._body is not None
        if self._remaining is None:
            self._take(len(self._buffer))
        else:
            self._remaining -= self._take(min(self._remaining, len(self._buffer)))
            if self._remaining == 0:
                self._finish()

    def _read_chunks(self) -> None:
        while True:
            if self._remaining is None:
                line = self._take_line()
                if line is None:
                    return
                size = _CHUNK_LINE.fullmatch(line)
                if size is None:
                    raise ValueError("a chunk without a size")
                # After the last chunk only the trailers are left, which end with an empty line.
                self._remaining = int(size[1], 16) or -1
            if self._remaining == -1:
                line = self._take_line()
                if line is None:
                    return
                if not line:
                    self._finish()
                    return
                continue
            self._remaining -= self._take(min(self._remaining, len(self._buffer)))
            if self._remaining > 0 or len(self._buffer) < 2:
                return
            if self._buffer[:2] != b"\r\n":
                raise ValueError("a chunk does not end where it should")
            del self._buffer[:2]
            self._remaining = None

    def _take_line(self) -> bytes | None:
        """Take a line between chunks from the buffer; None while it is incomplete."""
        end = self._buffer.find(b"\r\n", 0, _MAX_LINE_BYTES)
        if end < 0:
            if len(self._buffer) >= _MAX_LINE_BYTES:
                raise ValueError("a line between chunks is too long")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _take(self, count: int) -> int:
        """Move bytes from the buffer to the body."""
        assert self._body is not None
        self._check_size(len(self._body) + count)
        self._body += self._buffer[:count]
        del self._buffer[:count]
        return count

    def _check_size(self, size: int) -> None:
        if size > self._max_body_bytes:
            self._fail(ServerFailed(f"the answer is larger than {self._max_body_bytes} bytes"))
            self.close()
            raise ValueError("too large")

    def _finish(self) -> None:
        assert self._body is not None
        if self._buffer:
            self._keep_alive = False  # bytes beyond the answer: this connection cannot be trusted any more
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(HttpAnswer(self._status, self._headers, bytes(self._body)))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
