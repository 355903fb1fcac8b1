"""The metadata service of one instance, version 2, on a port of the loopback interface.

All programs of this machine reach that interface, and only the instance reaches its service on AWS. So the address has
a part that only the instance is told.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from emulator.platform.errors import ServiceError

_TOKEN_PATH = "/latest/api/token"  # noqa: S105 - an address
_TOKEN_HEADER = "x-aws-ec2-metadata-token"  # noqa: S105 - a name
_LIFETIMES = range(1, 21601)
_ENTRIES = "/latest/meta-data"
_CREDENTIALS = "iam/security-credentials"
_CREDENTIALS_SECONDS = 6 * 3600
#: Name of the role in the instance profile and a function that opens a session of it; None without a profile.
InstanceRole = tuple[str, Callable[[], dict[str, str]]] | None


class MetadataService:
    """Answers the requests of one instance, and those without a token of its own not at all.

    `entries` gives the entries by their paths below ``/latest/meta-data/``; it is asked at every request, because tags
    change while an instance runs.
    """

    def __init__(self, entries: Callable[[], Mapping[str, str]], role: InstanceRole) -> None:
        self._entries = entries
        self._role = role
        self._tokens: dict[str, float] = {}
        self._secret = f"/{secrets.token_urlsafe(32)}"
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                lifetime = self.headers.get(f"{_TOKEN_HEADER}-ttl-seconds", "")
                self._answer(*service._issue_token(service._below(self.path), lifetime))

            def do_GET(self) -> None:
                self._answer(*service._read(unquote(service._below(self.path)), self.headers.get(_TOKEN_HEADER, "")))

            def _answer(self, status: int, text: str) -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass  # the SDKs ask often

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="instance metadata", daemon=True).start()

    @property
    def url(self) -> str:
        """Where it answers, in place of ``http://169.254.169.254``."""
        return f"http://127.0.0.1:{self._server.server_port}{self._secret}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _below(self, path: str) -> str:
        """The path on an instance of a path here; nothing without the secret part."""
        secret, path = path[: len(self._secret)], path[len(self._secret) :]
        return path if secrets.compare_digest(secret.encode(), self._secret.encode()) else ""

    def _issue_token(self, path: str, lifetime: str) -> tuple[int, str]:
        if path != _TOKEN_PATH:
            return 404, ""
        if not lifetime.isdecimal() or int(lifetime) not in _LIFETIMES:
            return 400, ""
        token = secrets.token_urlsafe(42)
        self._tokens[token] = time.monotonic() + int(lifetime)
        return 200, token

    def _read(self, path: str, token: str) -> tuple[int, str]:
        """An entry, or the names of the entries below a path."""
        if self._tokens.get(token, 0.0) < time.monotonic():
            return 401, ""
        if not path.startswith(_ENTRIES):
            return 404, ""
        name = path.removeprefix(_ENTRIES).strip("/")
        entries: dict[str, str] = dict(self._entries())
        if self._role is not None:
            credentials = f"{_CREDENTIALS}/{self._role[0]}"
            entries[credentials] = json.dumps(_session(self._role[1])) if name == credentials else ""
        if name in entries:
            return 200, entries[name]
        below = f"{name}/" if name else ""
        names = {entry.removeprefix(below).partition("/")[:2] for entry in entries if entry.startswith(below)}
        return (200, "\n".join(sorted(first + slash for first, slash in names))) if names else (404, "")


def _session(open_session: Callable[[], dict[str, str]]) -> dict[str, str]:
    now, later = (_timestamp(time.time() + seconds) for seconds in (0, _CREDENTIALS_SECONDS))
    try:
        keys = open_session()
    except ServiceError as error:
        return {"Code": "AssumeRoleUnauthorizedAccess", "Message": error.message, "LastUpdated": now}
    return {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "LastUpdated": now,
        "AccessKeyId": keys["AWS_ACCESS_KEY_ID"],
        "SecretAccessKey": keys["AWS_SECRET_ACCESS_KEY"],
        "Token": keys["AWS_SESSION_TOKEN"],
        "Expiration": later,
    }


def _timestamp(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
