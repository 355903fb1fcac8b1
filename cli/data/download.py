"""Fetch one large file over HTTP, resumable with Range and If-Range (RFC 9110)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import requests
import urllib3

from cli.errors import NotReadyError

_ATTEMPTS = 5  # that bring nothing new, before it gives up
_BUSY = (408, 425, 429, 500, 502, 503, 504)
# Seconds between attempts double from 1, or are the server's Retry-After.
_RETRY = urllib3.Retry(4, backoff_factor=1, retry_after_max=60, status_forcelist=_BUSY, raise_on_status=False)
# What the signed addresses of S3, CloudFront and Google's storage add: it changes while the file is the same.
_SIGNATURE = re.compile(r"(?i)x-(amz|goog)-.*|signature|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid")
_OTHERWISE = "Name another address with --url, or fetch it by other means; docs/data.md says where to put it."
_KEPT = "What has arrived is kept; the same command goes on from there."


def public_url(url: str) -> str:
    """Return an address without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def address_digest(url: str) -> str:
    """Return a SHA-256 of an address with its query, without user, password and what a signature adds to the query."""
    query = [(name, value) for name, value in parse_qsl(urlsplit(url).query, True) if not _SIGNATURE.fullmatch(name)]
    return hashlib.sha256(json.dumps([public_url(url), query]).encode()).hexdigest()


def require_web_address(url: str) -> None:
    """Refuse with a NotReadyError what is no address of the web, without saying what may be secret in it."""
    try:
        usable = urlsplit(str(requests.Request("GET", url).prepare().url)).scheme in ("http", "https")
    except ValueError:
        usable = False
    if not usable:
        raise NotReadyError("Nothing can be fetched from what --url names: it is no web address.")


def download(url: str, part: Path, *, report: Callable[[int, int], None]) -> None:
    """Complete a file; what lies there is gone on from if it is of the same version of the same address.

    A NotReadyError says that the server refuses or sends nonsense, that the disk is full, or that several attempts in a
    row brought nothing new.
    """
    furthest = failures = 0
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=_RETRY))
        while True:
            try:
                problem = _attempt(session, url, part, report)
            except urllib3.exceptions.HTTPError as error:
                problem = _reason(error)
            except OSError as error:
                raise NotReadyError(f"{part} cannot be written: {error.strerror or error}.", _KEPT) from error
            if not problem:
                return
            # A server that cannot resume starts from zero each time: only what was never reached is progress.
            failures = 1 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            if failures >= _ATTEMPTS:
                raise NotReadyError(f"{public_url(url)}: {problem}. Given up after {_ATTEMPTS} attempts.", _KEPT)


def discard(part: Path) -> None:
    """Remove what `download` has left."""
    part.unlink(missing_ok=True)
    _version_path(part).unlink(missing_ok=True)


def _attempt(session: requests.Session, url: str, part: Path, report: Callable[[int, int], None]) -> str:
    """Fetch what is missing; return why that did not succeed, or ""."""
    (size, etag), have = _version(part, url) or (0, ""), _size(part)
    if have and have == size:
        return ""
    headers = {"Accept-Encoding": "identity"}  # a compressed file would have other positions
    if have and etag.startswith('"'):  # a weak one vouches for the meaning and not for the bytes
        headers |= {"Range": f"bytes={have}-", "If-Range": etag}
    # Servers that ignore If-Range send the rest of another version.
    rest = {"ETag": etag, "Content-Range": f"bytes {have}-{size - 1}/{size}", "Content-Length": str(size - have)}
    with _ask(session, url, headers) as response:
        if response.status_code == requests.codes.ok:
            have, size, etag = 0, int(response.headers["Content-Length"]), response.headers.get("ETag", "")
            discard(part)  # its version must never vouch for bytes of another one
            part.write_bytes(b"")
            version = {"address": address_digest(url), "size": size, "etag": etag}
            _version_path(part).write_text(json.dumps(version), encoding="utf-8")
        elif any(response.headers.get(name) != value for name, value in rest.items()):
            discard(part)
            return "it has changed, or another part was sent than was asked for"
        report(have, size)
        with part.open("ab") as file:
            for chunk in response.raw.stream(256 * 1024, decode_content=False):
                have += file.write(chunk)
                report(have, size)
    return "" if have == size else f"{have:,} bytes came where {size:,} were announced"


def _ask(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    name = public_url(url)
    try:
        response = session.get(url, headers=headers, stream=True, timeout=(10, 30))  # seconds: connect, read
    except ValueError as error:  # of an address, or one that it leads to; its message has the whole of it
        raise NotReadyError(f"Nothing can be fetched from {name!r}: it leads to no web address.", _KEPT) from error
    except requests.RequestException as error:
        raise NotReadyError(f"Nothing can be fetched from {name!r}: {_reason(error)}.", _KEPT) from error
    if urlsplit(url).scheme == "https" and urlsplit(response.url).scheme != "https":
        raise NotReadyError(f"{name} leads to an address without encryption, {public_url(response.url)}.")
    if response.status_code not in (200, 206, 416):
        answer = f"{public_url(response.url)} answers {response.status_code} {response.reason}"
        raise NotReadyError(f"{answer}: it is not there, or not for everybody.", _OTHERWISE)
    get = response.headers.get
    unlimited = get("Transfer-Encoding") or get("Content-Encoding") not in (None, "", "identity")
    if response.status_code != 416 and (unlimited or not get("Content-Length", "").isdecimal()):
        raise NotReadyError(f"{name} is sent compressed or without its length.", _OTHERWISE)
    return response


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _version_path(part: Path) -> Path:
    return part.with_name(f".{part.name}.version.json")


def _version(part: Path, url: str) -> tuple[int, str] | None:
    """Return length and ETag of what a part is of; None when that cannot be told."""
    try:
        version = json.loads(_version_path(part).read_text(encoding="utf-8"))
        return (version["size"], version["etag"]) if version["address"] == address_digest(url) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _reason(error: BaseException) -> str:
    """Return the innermost reason: requests wraps urllib3's error, which wraps the socket's."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
