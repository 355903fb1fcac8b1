"""HTTP connections that keep one deadline over everything: connecting, the TLS handshake, sending and reading.

A socket's own timeout starts anew with every byte, so a peer that drips one byte a second never runs into it.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_CONNECT_SECONDS = 2.0


class Deadline:
    """A moment after which nothing waits any more."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds left, always more than 0; raise TimeoutError when there are none."""
        seconds = self._at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the deadline has passed")
        return seconds

    def within(self, seconds: float) -> Deadline:
        """Return the earlier of this deadline and the one so many seconds from now."""
        earlier = Deadline(seconds)
        earlier._at = min(earlier._at, self._at)
        return earlier


class Allowance:
    """How many bytes may still be received, headers and framing included; several connections may share one."""

    def __init__(self, count: float) -> None:
        self._left = count

    def take(self, count: int) -> None:
        """Count what was received; raise ConnectionAbortedError when it is more than allowed."""
        self._left -= count
        if self._left < 0:
            raise ConnectionAbortedError("the host sends more than is allowed")


class DeadlineConnection(http.client.HTTPConnection):
    """An HTTP connection whose every wait ends at `deadline`, which may be moved between requests.

    `tls` is the context for HTTPS; the certificate must carry `server_name`, by default the address.
    """

    def __init__(
        self,
        address: str,
        port: int,
        deadline: Deadline,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        super().__init__(address, port)
        self.deadline = deadline
        self.allowance = allowance or Allowance(float("inf"))
        self._tls = tls
        self._server_name = server_name or address

    def connect(self) -> None:
        """Connect, and shake hands when there is a TLS context."""
        deadline = self.deadline.within(_CONNECT_SECONDS)
        plain = socket.create_connection((self.host, self.port), deadline.remaining())
        try:
            # Head and body leave in two writes: without this the second waits for the first one's acknowledgement.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.settimeout(deadline.remaining())
            wrapped = self._tls.wrap_socket(plain, server_hostname=self._server_name) if self._tls else plain
        except BaseException:
            plain.close()
            raise
        self.sock = _DeadlineSocket(wrapped, self)


class _DeadlineSocket:
    """The part of a socket that ``http.client`` uses, with the timeout set to what is left before every wait."""

    def __init__(self, sock: socket.socket, connection: DeadlineConnection) -> None:
        self._sock = sock
        self._connection = connection
        self.close = sock.close

    def sendall(self, data: ReadableBuffer) -> None:
        self._sock.settimeout(self._connection.deadline.remaining())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._sock, self._connection))


class _DeadlineReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, connection: DeadlineConnection) -> None:
        self._sock = sock
        # A file of the socket's own keeps it open while an answer is read, also after the connection was closed.
        self._file: Any = sock.makefile("rb", buffering=0)
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        self._sock.settimeout(self._connection.deadline.remaining())
        count: int | None = self._file.readinto(buffer)
        self._connection.allowance.take(count or 0)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
