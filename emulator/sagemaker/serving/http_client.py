"""An HTTP/1.1 client for model servers on this machine: kept-alive connections, responses read by httptools.

Every invocation passes through here, so a connection is a bare `asyncio.Protocol` around llhttp, the parser of Node.js:
aiohttp's client takes three times as long (docs/measurements/local-aws.md). llhttp refuses framing that can be read in
two ways; the limits of size are ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httptools

#: Of a response's head, and of all that surrounds its body: head, sizes of chunks, trailers.
_MAX_HEAD_BYTES = 64 * 1024
_MAX_FRAMING_BYTES = 8 * 1024 * 1024
#: AWS's words for a connection that is closed before the response is complete.
_EXITED = "An error occurred while handling request as the model process exited."


class ServerUnreachable(Exception):
    """No byte of the request was acted upon: nobody listens, or a kept-alive connection had just been closed."""


class ServerFailed(Exception):
    """The connection broke, or what came back was not an HTTP response, after the request had been sent."""


@dataclass
class HttpAnswer:
    """What a server answered; the names of `headers` are lower-case.

    `setup_seconds`: what passed before it was up. `more` asks for what follows of a body that a `Sink` takes.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    setup_seconds: float = 0.0
    more: Callable[[], None] = lambda: None


#: Takes what of a successful response's body has come, at first nothing; a slow reader is not to fill our memory.
Sink = Callable[[HttpAnswer, bytes], None]


class ConnectionPool:
    """Kept-alive connections to one port of the loopback interface; to be used from one event loop."""

    def __init__(self, port: int, max_body_bytes: int) -> None:
        self.port = port
        self._max_body_bytes = max_body_bytes
        self._idle: list[_Connection] = []

    async def post(self, path: str, headers: Mapping[str, str], body: bytes, sink: Sink | None = None) -> HttpAnswer:
        """Send one request and await the whole response; a cancelled call closes its connection.

        A `sink` takes the body of a successful response, of any size, instead.
        """
        lines = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{self.port}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        self._idle = [connection for connection in self._idle if connection.open]
        sent = bool(self._idle)
        if sent:
            # Closed while it was idle, most likely. But the request may as well have killed the server: it is sent once
            # more and to this server only, or one bad request could take down a whole fleet.
            with contextlib.suppress(ServerUnreachable):
                return await self._exchange(self._idle.pop(), head, body, sink)
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self._max_body_bytes), "127.0.0.1", self.port
            )
        except OSError as error:
            if sent:
                raise ServerFailed(_EXITED) from None
            raise ServerUnreachable(str(error)) from None
        return await self._exchange(connection, head, body, sink)

    async def _exchange(self, connection: _Connection, head: bytes, body: bytes, sink: Sink | None) -> HttpAnswer:
        try:
            answer = await connection.exchange(head, body, sink)
        except BaseException:
            connection.close()
            raise
        if connection.open:
            self._idle.append(connection)
        return answer


class _Connection(asyncio.Protocol):
    """One connection, which carries one exchange at a time. httptools calls the methods ``on_…``."""

    def __init__(self, max_body_bytes: int) -> None:
        self.open = False
        self._max_body_bytes = max_body_bytes
        self._used = False
        self._waiting: asyncio.Future[HttpAnswer] = asyncio.Future()
        self._waiting.cancel()  # nobody waits yet

    async def exchange(self, head: bytes, body: bytes, sink: Sink | None) -> HttpAnswer:
        self._sink = sink
        self._parser = httptools.HttpResponseParser(self)
        self._framing = 0  # bytes received that are not of the body
        self._in_body = False
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.writelines([head, body])
        try:
            return await self._waiting
        finally:
            self._used = True

    def close(self) -> None:
        self.open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.open = True

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._waiting.done():
            return
        if self._in_body and self._ends_with_connection and error is None:
            self.on_message_complete()
        elif self._used and not self._framing:
            self._fail(ServerUnreachable("the connection was closed while it was idle"))
        else:
            self._fail(ServerFailed(_EXITED))

    def data_received(self, data: bytes) -> None:
        if self._waiting.done():
            self.close()  # nobody asked: whatever it is, it must not become the response to the next request
            return
        self._framing += len(data)
        try:
            self._parser.feed_data(data)
            if self._framing > (_MAX_FRAMING_BYTES if self._in_body else _MAX_HEAD_BYTES):
                raise httptools.HttpParserError("too much around the body")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            cause = error.__context__  # what a method on_… raised
            self._fail(cause if isinstance(cause, ServerFailed) else ServerFailed("the answer was not HTTP"))
        if self._sink is not None and self._in_body and not self._waiting.done():
            self._transport.pause_reading()

    def on_message_begin(self) -> None:
        if self._waiting.done():
            self.close()  # bytes beyond the response: this connection cannot be trusted any more
        self._answer, self._body = HttpAnswer(), bytearray()

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        if key == "transfer-encoding" and (value.lower() != b"chunked" or key in self._answer.headers):
            raise ServerFailed("the answer was not HTTP that the local AWS reads: its transfer encoding is not chunked")
        self._answer.headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        if self._answer.status >= 200:  # others, such as 100 Continue, come before the response itself
            headers = self._answer.headers
            self._in_body = True
            self._ends_with_connection = not headers.keys() & {"transfer-encoding", "content-length"}
            if self._answer.status >= 300:
                self._sink = None
            if self._sink is None:
                self._check_size(int(headers.get("content-length", 0)))
            else:
                self._answer.more = self._transport.resume_reading
                self._sink(self._answer, b"")

    def on_body(self, body: bytes) -> None:
        self._framing -= len(body)
        if self._sink is None:
            self._check_size(len(self._body) + len(body))
            self._body += body
        else:
            self._sink(self._answer, body)

    def on_message_complete(self) -> None:
        if self._in_body and not self._waiting.done():
            self._answer.body = bytes(self._body)
            self._waiting.set_result(self._answer)
            if not self._parser.should_keep_alive():
                self.close()

    def _check_size(self, size: int) -> None:
        if size > self._max_body_bytes:
            raise ServerFailed(f"the answer is larger than {self._max_body_bytes} bytes")

    def _fail(self, error: Exception) -> None:
        if not self._waiting.done():
            self._waiting.set_exception(error)
        self.close()
