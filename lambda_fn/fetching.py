"""Fetching an image from a URL that a stranger chose.

Every address that a host name resolves to must be public, and the connection goes to one of those very addresses, so
that a name which changes its mind between the check and the connection (DNS rebinding) gains nothing. Redirects are
followed by hand, each one checked like the first URL. One deadline and one count of all that is received, headers and
redirects included, cover it: whatever a host says about lengths, it cannot make the function read more.
"""

from __future__ import annotations

import http.client
import queue
import re
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from io import BufferedReader

from .connection import Allowance, Deadline, DeadlineConnection
from .errors import ImageTooLargeError, UrlFetchError, UrlNotAllowedError
from .image_url import ImageUrl, is_public_address

MAX_REDIRECTS = 3
_MAX_ADDRESSES = 4
_CHUNK_BYTES = 64 * 1024
# For headers, redirects and the framing of chunks, beside the image.
_OVERHEAD_BYTES = 256 * 1024
# RFC 9112, 7.1, in a line that is not endless. `int` would take "-1" and "0x1_0", and so does http.client.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
_CHUNK_LINE_BYTES = 1024
_REDIRECTS = (301, 302, 303, 307, 308)
# Many hosts name the type of an image wrongly; these are surely something else, most of them a page about it.
_OTHER_TYPES = re.compile(r"text/(?!plain)|(audio|video|font)/|application/(.*\b(json|xml|pdf|zip)$|(x-)?javascript)")
# Of the names that servers give as codings, those that change the bytes. Others, such as aws-chunked,
# base64 and utf-8, are left over from an upload, or mean something else.
_COMPRESSIONS = {"br", "compress", "dcb", "dcz", "deflate", "gzip", "x-compress", "x-gzip", "zstd"}
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "Connection": "close"}


class _FinalResponse(http.client.HTTPResponse):
    """A response in front of which there may be interim ones of any kind (102, 103), where Python skips only 100."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, http.client.CONTINUE if 100 <= status < 200 else status, reason


Resolver = Callable[[str, Deadline], list[str]]


def resolve(host: str, deadline: Deadline) -> list[str]:
    """Return the IP addresses of a host, none when it is not found; raise TimeoutError when late."""
    answers: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            found = []
        answers.put(list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found)))

    # The system's resolver takes no timeout, and a name server that never answers keeps it for many seconds.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=deadline.remaining())
    except queue.Empty:
        raise TimeoutError("the name was not resolved in time") from None


class ImageFetcher:
    """Fetches images of at most `max_bytes`, each in `timeout_seconds` for names, connections, redirects and the body.

    Hosts are told the `contact`; Wikimedia and others refuse programs without one.

    The others are for tests: how names become addresses, which of these may be connected to, at which port, and which
    certificates are trusted.
    """

    def __init__(
        self,
        max_bytes: int,
        timeout_seconds: float,
        contact: str = "",
        *,
        resolver: Resolver = resolve,
        is_permitted: Callable[[str], bool] = is_public_address,
        port: int = 443,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._headers = {**_HEADERS, "User-Agent": "image-classifier/1" + (f" ({contact})" if contact else "")}
        self._resolver = resolver
        self._is_permitted = is_permitted
        self._port = port
        self._tls = tls

    def fetch(self, url: ImageUrl, deadline: Deadline) -> bytes:
        """Return the bytes at a URL; raise UrlNotAllowedError, UrlFetchError or ImageTooLargeError."""
        deadline = deadline.within(self._timeout_seconds)
        allowance = Allowance(self._max_bytes + _OVERHEAD_BYTES)
        try:
            for _ in range(1 + MAX_REDIRECTS):
                found = self._get(url, deadline, allowance)
                if isinstance(found, bytes):
                    return found
                url = found
        except TimeoutError as error:
            raise UrlFetchError(
                f"The image did not arrive in time; {self._timeout_seconds:g} seconds are allowed.", detail=repr(error)
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise UrlFetchError("The host's certificate is not valid.", detail=repr(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Errors of HTTP quote what the host sent, which may be the image.
            detail = repr(error) if isinstance(error, OSError) else type(error).__name__
            raise UrlFetchError("The connection to the host failed.", detail=detail) from error
        raise UrlFetchError(f"The URL redirects too often; {MAX_REDIRECTS} redirects are allowed.")

    def _get(self, url: ImageUrl, deadline: Deadline, allowance: Allowance) -> bytes | ImageUrl:
        connection = self._connect(url, deadline, allowance)
        try:
            connection.request("GET", url.target, headers={"Host": url.host_header, **self._headers})
            response = connection.getresponse()
            with response:
                if response.status in _REDIRECTS:
                    location = response.headers["Location"]  # the first; `getheader` would join several
                    if not location:
                        raise UrlFetchError("The host redirects without saying where to.")
                    return url.join(location)
                return self._image(response)
        finally:
            connection.close()

    def _connect(self, url: ImageUrl, deadline: Deadline, allowance: Allowance) -> DeadlineConnection:
        addresses = self._resolver(url.host, deadline)
        # One message for both, or callers could find out which names exist in our network.
        if not addresses or not all(self._is_permitted(address) for address in addresses):
            raise UrlNotAllowedError(
                "The URL's host has no public address: it was not found, or it leads into a private network."
            )
        if self._tls is None:  # made for the first URL, not at start: most functions see none
            self._tls = ssl.create_default_context()
        for address in addresses[:_MAX_ADDRESSES]:
            connection = DeadlineConnection(address, self._port, deadline, self._tls, url.host, allowance)
            connection.response_class = _FinalResponse
            try:
                connection.connect()
                return connection
            except ssl.SSLCertVerificationError:
                raise
            except OSError as error:
                deadline.remaining()
                last_error = error
        raise ConnectionError(f"no address could be connected to: {last_error!r}")

    def _image(self, response: http.client.HTTPResponse) -> bytes:
        if response.status != 200:
            raise UrlFetchError(f"The host answered with status {response.status}, not with an image.")
        media_type = response.getheader("Content-Type", "").partition(";")[0].strip().lower()
        if _OTHER_TYPES.match(media_type):
            raise UrlFetchError(f"The host answered with {media_type[:60]!r}, not with an image.")
        codings = re.split(r"[\s,]+", response.getheader("Content-Encoding", "").lower())
        if compressed := _COMPRESSIONS.intersection(codings):
            raise UrlFetchError(
                f"The host answered with data in {min(compressed)}, although no compression was asked for."
            )
        declared = _declared_length(response)
        # The declared length spares a transfer; what counts is what arrives.
        if declared is not None and declared > self._max_bytes:
            raise ImageTooLargeError.over(self._max_bytes, declared)
        body = bytearray()
        for piece in _pieces(response, declared):
            body += piece
            if len(body) > self._max_bytes:
                raise ImageTooLargeError.over(self._max_bytes)
        if not body:
            raise UrlFetchError("The host answered with nothing.")
        if declared is not None and len(body) < declared:
            raise UrlFetchError("The host closed the connection in the middle of the image.")
        return bytes(body)


def _declared_length(response: http.client.HTTPResponse) -> int | None:
    """Return the length of a body, None where it ends with the connection or comes in chunks.

    Framing that two readers could understand in two ways (RFC 9112, 6.3) raises ValueError.
    """
    lengths = [text.strip() for line in response.headers.get_all("Content-Length", []) for text in line.split(",")]
    codings = [coding.lower() for coding in response.headers.get_all("Transfer-Encoding", [])]
    if codings not in ([], ["identity"]) and (lengths or codings != ["chunked"]):
        raise ValueError(f"Transfer-Encoding {codings!r}, Content-Length {lengths!r}")
    if not lengths:
        return None
    if len(set(lengths)) > 1 or not re.fullmatch("[0-9]{1,18}", lengths[0]):
        raise ValueError(f"Content-Length {lengths!r}")
    return int(lengths[0])


def _pieces(response: http.client.HTTPResponse, declared: int | None) -> Iterator[bytes]:
    """Give a body piece by piece, none larger than `_CHUNK_BYTES`."""
    file: BufferedReader = response.fp
    if not response.chunked:
        left = declared if declared is not None else sys.maxsize
        while left and (piece := file.read(min(left, _CHUNK_BYTES))):
            left -= len(piece)
            yield piece
        return
    while True:
        line = _CHUNK_LINE.fullmatch(file.readline(_CHUNK_LINE_BYTES))
        if line is None:
            raise ValueError("a chunk without a size")
        left = int(line[1], 16)
        if not left:
            return  # the trailers behind it say nothing that is needed, and the connection is closed
        while left:
            piece = file.read(min(left, _CHUNK_BYTES))
            if not piece:
                raise UrlFetchError("The host closed the connection in the middle of the image.")
            left -= len(piece)
            yield piece
        if file.read(2) != b"\r\n":
            raise ValueError("a chunk that does not end where it says")
