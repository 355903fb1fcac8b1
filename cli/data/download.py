"""Fetch one large file over HTTP: resumable after anything, complete or not there at all.

What has arrived lies in ``FILE.part``; ``.FILE.version.json`` says which version of the file it is the beginning of
(the server's ETag or Last-Modified). The next attempt asks for the rest with ``Range`` and ``If-Range`` (RFC 9110,
sections 13.1.5 and 14.2), so that a server whose file has changed sends the new one whole and two versions are never
mixed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3

from cli.console import console
from cli.errors import NotReadyError

_CHUNK = 256 * 1024  # bytes; what is lost when the connection breaks is at most this
_TIMEOUT = (10, 30)  # seconds to connect, and without a byte
_ATTEMPTS = 5  # without a single new byte, before it gives up
_LONGEST_WAIT = 60.0  # seconds
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_CONNECTION = re.compile(r"^(<[^>]*>|HTTPS?Connection(Pool)?\([^)]*\)): ")
_OUR_REQUEST_IS_WRONG = range(400, 500)
_TRY_AGAIN_STATUS = frozenset({408, 425, 429})  # of the 4xx: those that say "later"

Report = Callable[[int, int | None], None]
"""Called with the bytes that are there and, where it is known, how many there will be."""


@dataclass(frozen=True)
class Version:
    """Which version of which file a part belongs to.

    Attributes
    ----------
    url : str
        Without user name, password and query, which may be secrets and change with every signed link.
    validator : str
        A strong ETag, or the Last-Modified date; "" where the server gives neither, so that nothing can be resumed.
    size : int or None
        Bytes of the whole file, where the server says.
    """

    url: str
    validator: str
    size: int | None


class _TryAgainError(Exception):
    """The attempt failed for a reason that may pass."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait  # seconds, where the server asked for it


def public_url(url: str) -> str:
    """An address without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    url: str, destination: Path, *, report: Report, room_for_contents: bool = False, first_wait: float = 1.0
) -> None:
    """Fetch a file, going on where an earlier attempt stopped; return at once when it is there.

    Parameters
    ----------
    url : str
        http or https; proxies and certificates are those of the usual environment variables.
    destination : Path
        In a folder that exists. It appears when it is complete. A file that lies there and did not come from another
        address is taken for it.
    report : callable
    room_for_contents : bool
        Also ask for as much free disk again as the file is large, because it will be unpacked beside itself.
    first_wait : float
        Seconds before the second attempt; doubled before each further one.

    Raises
    ------
    NotReadyError
        The address is wrong, the server refuses or sends nonsense, the disk is too small, or nothing more arrived in
        several attempts in a row. What has arrived is kept.
    """
    part = _Part(destination, public_url(url))
    if part.is_complete():
        return
    part.discard_other_file()
    furthest, failures = part.length(), 0
    with requests.Session() as session:
        while not part.is_complete():
            try:
                _attempt(session, url, part, report, room_for_contents)
            except _TryAgainError as error:
                # A server that cannot resume starts from zero each time: only what was never reached is progress.
                failures = 1 if part.length() > furthest else failures + 1
                furthest = max(furthest, part.length())
                if failures >= _ATTEMPTS:
                    raise NotReadyError(
                        f"{error}. Given up after {_ATTEMPTS} attempts that brought nothing new.",
                        f"{part.length() / 1e6:.1f} MB are kept; the same command goes on from there.",
                    ) from error
                wait = min(_LONGEST_WAIT, error.wait if error.wait is not None else first_wait * 2 ** (failures - 1))
                console.print(f"{error}; trying again in {wait:.0f} s")
                time.sleep(wait)


class _Part:
    """The file under way, on disk."""

    def __init__(self, destination: Path, url: str) -> None:
        self.destination, self.url = destination, url
        self.path = destination.with_name(destination.name + ".part")
        self.version_path = version_path(destination)

    def length(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> Version | None:
        """Of which version this is the beginning; None when that cannot be told (any more)."""
        try:
            version = Version(**json.loads(self.version_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return version if version.url == self.url else None

    def is_complete(self) -> bool:
        return self.destination.exists() and (not self.version_path.exists() or self.version() is not None)

    def discard_other_file(self) -> None:
        """Remove what an earlier download left here of another address."""
        if self.version_path.exists() and self.version() is None:
            self.destination.unlink(missing_ok=True)
            self.restart()

    def restart(self) -> None:
        # In this order: bytes without a version are thrown away, but a version would vouch for bytes of another.
        self.version_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def begin(self, version: Version) -> None:
        self.restart()
        self.path.touch()
        unfinished = self.version_path.with_name(self.version_path.name + ".new")
        unfinished.write_text(json.dumps(asdict(version), indent=2) + "\n", encoding="utf-8")
        unfinished.replace(self.version_path)

    def finish(self) -> None:
        self.path.replace(self.destination)


def version_path(destination: Path) -> Path:
    """Where the version of a downloaded file is kept; it is there as long as the file is one of ours."""
    return destination.with_name(f".{destination.name}.version.json")


def _attempt(session: requests.Session, url: str, part: _Part, report: Report, room_for_contents: bool) -> None:
    known, have = part.version(), part.length()
    if known is None or not known.validator:
        have = 0
    if have and known is not None and have == known.size:
        part.finish()  # all of it had arrived when the last attempt ended
        return
    # Without "identity" a server may compress, and positions would no longer be those of the file.
    headers = {"Accept-Encoding": "identity"}
    if have and known is not None:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.validator}
    try:
        with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            version = _begin_or_go_on(response, part, known, have, url)
            have = part.length()
            report(have, version.size)
            limit = have + _room(part, version, have, room_for_contents)
            _refuse_negative_chunks(response.raw)
            with part.path.open("ab") as file:
                for chunk in response.raw.stream(_CHUNK, decode_content=False):
                    file.write(chunk)
                    have += len(chunk)
                    report(have, version.size)
                    if have > limit:
                        part.restart()
                        raise NotReadyError(f"{part.url} sent {limit:,} bytes without end, half of the free disk.")
    except requests.exceptions.SSLError as error:
        raise NotReadyError(
            f"The connection to {part.url} is not secure: {_reason(error)}.",
            "REQUESTS_CA_BUNDLE names other certificates.",
        ) from error
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
        requests.exceptions.TooManyRedirects,
    ) as error:
        raise NotReadyError(f"Nothing can be fetched from {part.url!r}: {error}.") from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _TryAgainError(f"{part.url}: {_reason(error)}") from error
    except OSError as error:  # after the network's errors, which are OSErrors, too
        raise NotReadyError(
            f"{part.path} cannot be written: {error.strerror or error}.",
            "What has arrived is kept; the same command goes on from there.",
        ) from error
    if version.size is not None and have != version.size:
        if have > version.size:
            part.restart()
        raise _TryAgainError(f"{part.url} sent {have:,} bytes where {version.size:,} were announced")
    part.finish()


def _begin_or_go_on(response: requests.Response, part: _Part, known: Version | None, have: int, url: str) -> Version:
    """Decide by the answer's head what its body is, and prepare the part for it."""
    _check_status(response, part, url)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise NotReadyError(f"{part.url} is sent compressed, although it was asked for as it is.")
    if response.status_code == requests.codes.partial_content:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if known is None or match is None or not _continues(response, match, known, have):
            part.restart()
            raise _TryAgainError(f"{part.url} has changed or sent another part than was asked for")
        return known if known.size is not None or match[3] == "*" else replace(known, size=int(match[3]))
    length = response.headers.get("Content-Length", "")
    version = Version(part.url, _validator(response), int(length) if length.isdecimal() else None)
    part.begin(version)
    return version


def _check_status(response: requests.Response, part: _Part, url: str) -> None:
    status = response.status_code
    if urlsplit(url).scheme == "https" and urlsplit(response.url).scheme != "https":
        raise NotReadyError(f"{part.url} leads to an address without encryption, {public_url(response.url)}.")
    if status in (requests.codes.ok, requests.codes.partial_content):
        return
    if status == requests.codes.requested_range_not_satisfiable and part.length():
        part.restart()
        raise _TryAgainError(f"{part.url} is shorter than what has arrived of it", wait=0)
    if status in _OUR_REQUEST_IS_WRONG and status not in _TRY_AGAIN_STATUS:
        raise NotReadyError(
            f"{public_url(response.url)} answers {status} {response.reason}: it is not there, or not for everybody.",
            "Name another address with --url.",
        )
    asked = response.headers.get("Retry-After", "")
    raise _TryAgainError(f"{part.url} answers {status} {response.reason}", float(asked) if asked.isdecimal() else None)


def _continues(response: requests.Response, content_range: re.Match[str], known: Version, have: int) -> bool:
    """Whether a partial answer is the rest of what is there; a server that ignores If-Range sends another version's."""
    validator = response.headers.get("ETag" if known.validator.startswith('"') else "Last-Modified", known.validator)
    sizes = {content_range[3], "*"} if known.size is None else {str(known.size), "*"}
    return int(content_range[1]) == have > 0 and content_range[3] in sizes and validator == known.validator


def _validator(response: requests.Response) -> str:
    """What If-Range may be given: a weak ETag may not, as it vouches for the meaning and not for the bytes."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _refuse_negative_chunks(raw: Any) -> None:
    """Have urllib3 refuse a chunk of "-1" bytes, which it takes for all that will ever come, in memory."""
    update = raw._update_chunk_length

    def checked() -> None:
        update()
        if raw.chunk_left < 0:
            raise urllib3.exceptions.InvalidChunkLength(raw, b"-")

    raw._update_chunk_length = checked


def _room(part: _Part, version: Version, have: int, room_for_contents: bool) -> int:
    """Return how many more bytes the disk may take; of a file whose length nobody says, half of what is free."""
    free = shutil.disk_usage(part.path.parent).free
    if version.size is None:
        return free // 2
    needed = version.size - have + (version.size if room_for_contents else 0)
    if free < needed:
        what = "to download and unpack it" if room_for_contents else "to download it"
        raise NotReadyError(
            f"{part.path.parent} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB are needed {what}.",
            "Make room or choose a folder on another volume; what has arrived is kept.",
        )
    return free


def _reason(error: Exception) -> str:
    """The innermost reason: requests wraps urllib3's error, which wraps the socket's."""
    inner: object = error
    while isinstance(inner, BaseException) and inner.args:
        nested = getattr(inner, "reason", None) or next(
            (value for value in inner.args if isinstance(value, BaseException)), None
        )
        if not isinstance(nested, BaseException):
            break
        inner = nested
    # urllib3 puts the connection in front, as <…Connection object at 0x…>: or HTTPSConnection(host='…', port=443):
    return _CONNECTION.sub("", str(inner)) or type(inner).__name__
