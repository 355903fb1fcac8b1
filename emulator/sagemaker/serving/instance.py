"""One instance of a production variant: the artifact's server as a process group, watched and restarted."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import logging
import shutil
import subprocess
import threading
import time
from pathlib import Path

from emulator.platform.clock import pauses
from emulator.platform.processes import ProcessRegistry
from emulator.platform.settings import describe_exit, free_port
from emulator.sagemaker.logs import OUTPUT_SECONDS, LogStream, read_output
from emulator.sagemaker.serving.container import ServingContainer
from emulator.sagemaker.serving.http_client import ConnectionPool

logger = logging.getLogger(__name__)

#: InvokeEndpoint's limit for a body, in either direction (botocore's BodyBlob).
MAX_BODY_BYTES = 6_291_456
#: SageMaker's own: a container has 2 s to answer a ping.
_PING_TIMEOUT_SECONDS = 2.0
_PING_INTERVAL_SECONDS = 5.0
_PINGS_MISSED_UNTIL_RESTART = 3
_STARTUP_POLL_SECONDS = 0.05
#: A server that exits before it is healthy is started once more: its port may have been taken meanwhile.
_STARTS_UNTIL_FAILURE = 2
#: After a server that ran this long the pauses between restarts begin anew.
_STABLE_SECONDS = 60.0


class Instance:
    """A model server that is kept running until `stop`.

    `pool` holds connections to the server while it is healthy. `outstanding` counts invocations under way (changed in
    the event loop only), `answered` those answered so far. `failure` says why the server never became healthy. `own` is
    a folder for its temporary files, which is removed in the end.
    """

    def __init__(
        self,
        processes: ProcessRegistry,
        container: ServingContainer,
        own: Path,
        log: LogStream,
        startup_seconds: float,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.pool: ConnectionPool | None = None
        self.outstanding = 0
        self.answered = 0
        self.failure: str | None = None
        self.log = log
        self._processes = processes
        self._container = container
        self._own = own
        self._startup_seconds = startup_seconds
        self._after_seconds = 0.0
        self._max_body_bytes = max_body_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"instance {log.stream}", daemon=True)

    def start(self, after_seconds: float = 0.0) -> None:
        """Start the server in the background, once the instance itself would have come up."""
        self._after_seconds = after_seconds
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """The process of the server, None before the first."""
        return self._process.pid if self._process is not None else None

    def settled(self) -> bool:
        """Wait until the server is healthy for the first time (True) or has failed or was stopped (False)."""
        self._settled.wait()
        return self.failure is None and not self._stopping.is_set()

    def stop(self, drain_seconds: float = 0.0, grace_seconds: float = 5.0) -> None:
        """Take no more invocations, wait so long for those under way, and end the server (SIGKILL after the grace)."""
        self._stopping.set()
        self.pool = None
        deadline = time.monotonic() + drain_seconds
        while self.outstanding and time.monotonic() < deadline:
            time.sleep(0.02)
        with self._lock:
            process = self._process
        if process is not None:
            self._processes.terminate(process, grace_seconds)
        if self._thread.ident is not None:
            self._thread.join(grace_seconds + 5)
        self.log.close()
        shutil.rmtree(self._own, ignore_errors=True)

    def _run(self) -> None:
        if self._after_seconds:
            self._stopping.wait(self._after_seconds)
        waits = pauses()
        for starts in itertools.count(1):
            began = time.monotonic()
            try:
                problem, final = self._run_server()
            except Exception as error:  # such as a closed registry: the local AWS is going down
                logger.exception("instance %s", self.log.stream)
                problem, final = str(error), True
            if self._stopping.is_set():
                break
            self.log.write(f"[local AWS] the model server {problem}")
            if not self._settled.is_set() and (final or starts == _STARTS_UNTIL_FAILURE):
                self.failure = problem
                break
            if time.monotonic() - began > _STABLE_SECONDS:
                waits = pauses()
            self._stopping.wait(next(waits))
        self._settled.set()

    def _run_server(self) -> tuple[str, bool]:
        """Run the server once; say why that ended, and whether another try is pointless."""
        port = free_port()
        command = self._container.command(self._own)
        environment = {**self._container.environment(self._own), "SAGEMAKER_BIND_TO_PORT": str(port)}
        try:
            with self._lock:
                if self._stopping.is_set():
                    return "was stopped", True
                process = self._process = self._processes.spawn(
                    command,
                    cwd=self._container.root,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
        except OSError as error:
            return f"cannot be started: {Path(command[0]).name}: {error.strerror}", True
        assert process.stdout is not None
        output = read_output(process.stdout, self.log.write)
        try:
            problem = self._await_first_ping(process, port)
            if problem is not None:
                return problem, process.poll() is None
            self.pool = ConnectionPool(port, self._max_body_bytes)
            self._settled.set()
            return self._watch(process, port), False
        finally:
            self.pool = None
            self._processes.terminate(process, grace_seconds=2.0 if not self._stopping.is_set() else 5.0)
            output.join(OUTPUT_SECONDS)

    def _await_first_ping(self, process: subprocess.Popen[bytes], port: int) -> str | None:
        """Wait until the server is healthy; otherwise say what happened."""
        deadline = time.monotonic() + self._startup_seconds
        while time.monotonic() < deadline:
            if _ping(port):
                return None
            with contextlib.suppress(subprocess.TimeoutExpired):
                return describe_exit(process.wait(_STARTUP_POLL_SECONDS))
        return f"did not answer GET /ping with 200 within {self._startup_seconds:g} s"

    def _watch(self, process: subprocess.Popen[bytes], port: int) -> str:
        """Wait until the server ends or stops answering."""
        missed = 0
        while True:
            answered = self.answered
            with contextlib.suppress(subprocess.TimeoutExpired):
                return describe_exit(process.wait(_PING_INTERVAL_SECONDS))
            # An answered invocation is as good a sign of life: a busy server may be late with its pings.
            missed = 0 if self.answered > answered or _ping(port) else missed + 1
            if missed == _PINGS_MISSED_UNTIL_RESTART:
                return f"missed {missed} pings in a row and is restarted"


def _ping(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PING_TIMEOUT_SECONDS)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    return False
