"""What lies where in the state folder, and who may use it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emulator.platform import settings
from emulator.platform.processes import process_started, same_process

#: Of the folder's contents; a server refuses a folder with another.
FORMAT = 4
#: The last threads of a server that was killed may hold the folder for a moment.
_LOCK_SECONDS = 1.0
_POLL_SECONDS = 0.01
#: A socket's path may have about 105 characters: Python's multiprocessing takes up to 45 of them for itself, and the
#: folder of one program 9.
_LONGEST_TEMPORARY = 50


class StateError(RuntimeError):
    """The state folder or the port cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Credentials:
    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True)
class Server:
    """The process that holds a state folder."""

    pid: int
    started: float  # tells it from others that have its pid later
    port: int | None  # None while it starts

    def alive(self) -> bool:
        return same_process(process_started(self.pid), self.started)


@contextlib.contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """Take a port of the loopback address, or raise a `StateError`."""
    if not 0 < port < 65536:
        raise StateError(f"{port} is not a port: choose one between 1 and 65535.")
    # The protocol is named because asyncio turns Nagle's algorithm off, 40 ms an answer, only where it is.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.BIND_HOST, port))
        except OSError as error:
            raise StateError(f"Port {port} cannot be used: {error.strerror}. Choose another port.") from None
        yield listener


def access_key_id(prefix: str) -> str:
    """Make an access key id: ``AKIA…`` for a long-lived key, ``ASIA…`` for a session."""
    return prefix + secrets.token_hex(8).upper()


class StateDir:
    """The state folder of one local AWS; made when it is first needed."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.database = self.root / "ministack.db"
        self.log = self.root / "server.log"
        self.processes = self.root / "processes"
        #: Temporary files of the server, of functions, containers and instances; emptied at start and end.
        self.temporary = self.root / "tmp"
        if len(str(self.temporary)) > _LONGEST_TEMPORARY:
            # Named after the folder, so that the next server finds what a killed one left.
            identity = hashlib.sha256(str(self.root).encode()).hexdigest()[:12]
            self.temporary = Path("/tmp") / f"local-aws-{identity}"  # noqa: S108 - see `make_temporary`
        self._credentials = self.root / "credentials.json"
        self._lock = self.root / "lock"
        self._server = self.root / "server.json"
        self._format = self.root / "format.json"

    def prepare(self) -> None:
        """Make the folder, readable for its owner only; a StateError says why it cannot be used."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.root.chmod(0o700)
            if not self._format.exists():
                _write_private(self._format, {"format": FORMAT})
            found = json.loads(self._format.read_text()).get("format")
        except (OSError, ValueError, AttributeError) as error:
            raise StateError(f"The state folder {self.root} cannot be used: {error}.") from None
        if found != FORMAT:
            raise StateError(
                f"The state folder {self.root} was written by another version (its format is {found}, this version "
                f"reads {FORMAT}). Use that version, or remove the folder to start afresh."
            )

    def credentials(self) -> Credentials:
        """Read the administrator's access key, or make it the first time."""
        if not self._credentials.exists():
            made = Credentials(access_key_id("AKIA"), secrets.token_urlsafe(30))
            _write_private(self._credentials, asdict(made))
        return Credentials(**json.loads(self._credentials.read_text()))

    def server(self) -> Server | None:
        """Find the server that holds this folder."""
        try:
            server = Server(**json.loads(self._server.read_text()))
        except FileNotFoundError:
            return None
        return server if server.alive() else None

    def announce(self, port: int | None) -> None:
        """Say that this process is the server, and where it answers."""
        pid = os.getpid()
        _write_private(self._server, asdict(Server(pid, process_started(pid) or 0.0, port)))

    def make_temporary(self) -> None:
        """Make the folder for temporary files, empty and for this user alone, or raise a `StateError`.

        Anybody may have made one of that name in ``/tmp``.
        """
        shutil.rmtree(self.temporary, ignore_errors=True)
        try:
            self.temporary.mkdir(mode=0o700)
        except OSError as error:
            raise StateError(
                f"The folder for temporary files, {self.temporary}, cannot be made afresh: {error.strerror}. Remove "
                "it, or use another state folder."
            ) from None

    def withdraw(self) -> None:
        """Take back `announce` and remove temporary files."""
        self._server.unlink(missing_ok=True)
        shutil.rmtree(self.temporary, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder alone, or raise a `StateError`; it is let go when this process ends, however it ends."""
        self.prepare()
        with self._lock.open("a") as file:
            deadline = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        hint = "Stop it first, or use another state folder."
                        raise StateError(f"A local AWS is already running on {self.root}. {hint}") from None
                time.sleep(_POLL_SECONDS)
            self.announce(None)
            yield


def _write_private(path: Path, content: dict[str, Any]) -> None:
    """Write a file atomically that only its owner may read."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # readable by its owner only
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
