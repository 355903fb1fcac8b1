"""Log lines of containers: to a file, to CloudWatch Logs within a second, and the last ones kept for error messages."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 30.0
#: Limits of PutLogEvents: events, and bytes with an overhead of 26 each, a request; bytes an event.
_MAX_EVENTS = 10_000
_MAX_BATCH_BYTES = 1_048_576
_EVENT_OVERHEAD = 26
_MAX_LINE_BYTES = 65_536
#: Lines kept while CloudWatch does not take them; the oldest are dropped, the file has them all.
_MAX_WAITING = 50_000
_MAX_FILE_BYTES = 5 * 2**20
_TAIL_LINES = 50
_NO_SPACE = "the disk was full"


class LogStream:
    """One stream of a log group, which never fails its writer.

    When CloudWatch refuses the lines (a role without logs permissions, as on AWS), they are only in the file, and while
    the disk is full the file does without them.

    Parameters
    ----------
    connect
        Gives a CloudWatch Logs client; called in the background, may fail.
    path
        The file; at 5 MB it is moved to ``<name>.1`` and begun anew.
    """

    def __init__(self, connect: Callable[[], Any], group: str, stream: str, path: Path) -> None:
        self.group = group
        self.stream = stream
        self._connect = connect
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._waiting: deque[dict[str, Any]] = deque()
        self._client: Any = None
        self._pause = 0.0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._file = _LogFile(path)
        self._shipper = threading.Thread(target=self._ship, name=f"logs {stream}", daemon=True)
        self._shipper.start()

    def write(self, line: str) -> None:
        with self._lock:
            self._tail.append(line)
            # CloudWatch takes no empty message.
            self._waiting.append({"timestamp": int(time.time() * 1000), "message": line or " "})
            if len(self._waiting) > _MAX_WAITING:
                self._waiting.popleft()
            if not self._closed.is_set():
                self._file.write(line)

    def tail(self, lines: int) -> list[str]:
        with self._lock:
            return list(self._tail)[-lines:]

    def close(self, timeout: float = 5.0) -> None:
        """Send what is waiting and stop."""
        self._closed.set()
        self._shipper.join(timeout)
        with self._lock:
            self._file.close()

    def _ship(self) -> None:
        self._flush()  # makes the stream, so that it is there even when nothing is ever printed
        while not self._closed.wait(FLUSH_SECONDS + self._pause):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        batch: list[dict[str, Any]] = []
        try:
            if self._client is None:
                self._client = self._open_stream()
            while batch := self._next_batch():
                self._client.put_log_events(logGroupName=self.group, logStreamName=self.stream, logEvents=batch)
            self._pause = 0.0
        except Exception as error:  # whatever keeps the log out of CloudWatch must not stop the container
            if self._pause == 0.0:
                logger.warning("lines of %s do not reach %s: %s", self.stream, self.group, error)
            self._client = None
            self._pause = min(_MAX_PAUSE_SECONDS, 2 * self._pause + 1)
            with self._lock:
                self._waiting.extendleft(reversed(batch))

    def _open_stream(self) -> Any:
        client = self._connect()
        # A stack may have made the group already, and a role that may only write to it is enough.
        with contextlib.suppress(ClientError, BotoCoreError):
            client.create_log_group(logGroupName=self.group)
        with contextlib.suppress(ClientError, BotoCoreError):
            client.create_log_stream(logGroupName=self.group, logStreamName=self.stream)
        return client

    def _next_batch(self) -> list[dict[str, Any]]:
        batch: list[dict[str, Any]] = []
        size = 0
        with self._lock:
            while self._waiting and len(batch) < _MAX_EVENTS:
                size += len(self._waiting[0]["message"].encode(errors="replace")) + _EVENT_OVERHEAD
                if size > _MAX_BATCH_BYTES and batch:
                    break
                batch.append(self._waiting.popleft())
        return batch


class _LogFile:
    """A file of lines that cannot fail: lines that it has no space for are left out, and their number is noted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._left_out = 0

    def write(self, line: str) -> None:
        """Add one line."""
        note = f"\n[local AWS] {self._left_out} lines are missing here: {_NO_SPACE}\n" if self._left_out else ""
        try:
            self._append(f"{note}{line}\n".encode(errors="replace"))
            self._left_out = 0
        except OSError as error:
            if not self._left_out:
                logger.warning("lines of %s are left out: %s", self._path, error)
            self._left_out += 1
            self.close()

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _append(self, content: bytes) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = io.FileIO(self._path, "ab")
        if self._file.write(content) != len(content):
            raise OSError(_NO_SPACE)
        if self._file.tell() > _MAX_FILE_BYTES:
            self.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))


class OutputReader:
    """Hands every line that a program prints to a function, in a thread of its own."""

    def __init__(self, output: IO[bytes], sink: Callable[[str], None]) -> None:
        self._output = output
        self._sink = sink
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._output:
            while line := self._output.readline(_MAX_LINE_BYTES):
                self._sink(line.decode(errors="replace").rstrip("\r\n"))

    def join(self, timeout: float = 2.0) -> None:
        """Wait for the end of the output; a process that left its group may hold it open, hence the limit."""
        self._thread.join(timeout)
