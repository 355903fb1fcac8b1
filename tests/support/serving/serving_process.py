"""Starts the real model server in a process group of its own, as a container or the local AWS does."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import local_aws_harness
import psutil
from waiting import wait_until

DEADLINE_SECONDS = 60
LOADED = "A worker has loaded the model and run it"


@dataclass(frozen=True)
class Reply:
    status: int
    document: Any
    headers: dict[str, str]


class ModelServer:
    """A running server, and the client to it."""

    def __init__(self, artifact: Path, log: Path, *, program: list[str] | None = None, **environment: str) -> None:
        self.port = int(environment.setdefault("SAGEMAKER_BIND_TO_PORT", str(local_aws_harness.free_port())))
        self._log = log
        # The interpreter that runs the tests is the one that a program's first line finds.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        settings = {"PATH": path, "SM_MODEL_DIR": str(artifact), "SAGEMAKER_BIND_TO_HOST": "127.0.0.1"} | environment
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                program or [sys.executable, "-m", "model.serving.server"],
                env=settings,
                cwd=artifact if program else None,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def workers(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
        return []

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            response = connection.getresponse()
            content = response.read()
            is_json = response.headers.get("content-type") == "application/json"
            return Reply(response.status, json.loads(content) if is_json else content, dict(response.headers))

    def invoke(self, data: bytes, content_type: str = "image/png", **headers: str) -> Reply:
        return self.request("POST", "/invocations", data, content_type=content_type, **headers)

    def ping(self) -> int | None:
        try:
            return self.request("GET", "/ping").status
        except ConnectionError:
            return None

    def wait_until_ready(self) -> ModelServer:
        def is_ready() -> bool:
            assert self.process.poll() is None, f"the server ended: {self.log()}"
            return self.ping() == 200

        wait_until(is_ready)
        return self

    def log(self) -> str:
        return self._log.read_text()

    def errors(self) -> list[str]:
        """Return the messages that the server logged as errors; all lines must be JSON."""
        entries = [json.loads(line) for line in self.log().splitlines()]
        return [entry["message"] for entry in entries if entry["level"] == "ERROR"]

    def wait_until_gone(self) -> int:
        """Wait until the server and its workers, its process group, have ended; return the server's exit status."""
        status = self.process.wait(DEADLINE_SECONDS)
        wait_until(lambda: not self._send_group(0))
        return status

    def _send_group(self, number: int) -> bool:
        """Send a signal to the process group and return whether there is one."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        self._send_group(signal.SIGKILL)
        self.process.wait(DEADLINE_SECONDS)


@contextlib.contextmanager
def model_server(
    artifact: Path, log: Path, *, workers: int = 1, ready: bool = True, **options: Any
) -> Iterator[ModelServer]:
    """Give a server, by default when all its workers are ready, and make sure that it is gone afterwards."""
    server = ModelServer(artifact, log, SAGEMAKER_MODEL_SERVER_WORKERS=str(workers), **options)
    try:
        if ready:
            server.wait_until_ready()
            wait_until(lambda: server.log().count(LOADED) >= workers)
        yield server
    finally:
        server.kill()
