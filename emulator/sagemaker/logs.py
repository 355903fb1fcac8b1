"""Log lines of containers: to CloudWatch Logs within a second, and the last ones kept for error messages."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import accumulate, islice
from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError

from emulator.sagemaker.roles import Role

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
OUTPUT_SECONDS = 2.0
_MAX_PAUSE_SECONDS = 30.0
#: PutLogEvents takes 1 MiB in UTF-8, with 26 bytes more for each line.
_LINES_TOGETHER, _BYTES_TOGETHER, _BYTES_MORE = 500, 1_048_576, 26
_MAX_LINE_BYTES = 65_536
#: Lines kept while CloudWatch does not take them; the oldest are dropped.
_MAX_WAITING = 50_000
_TAIL_LINES = 20


class LogStream:
    """One stream of a log group, which never fails its writer.

    While CloudWatch refuses the lines (a role without logs permissions, as on AWS) the newest are kept for another try.
    """

    def __init__(self, role: Role, group: str, stream: str) -> None:
        self.group = group
        self.stream = stream
        self._role = role
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._waiting: deque[dict[str, Any]] = deque()
        self._client: Any = None
        self._pause = 0.0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._shipper = threading.Thread(target=self._ship, name=f"logs {stream}", daemon=True)
        self._shipper.start()

    def write(self, line: str) -> None:
        with self._lock:
            self._tail.append(line)
            # CloudWatch takes no empty message.
            self._waiting.append({"timestamp": int(time.time() * 1000), "message": line or " "})
            if len(self._waiting) > _MAX_WAITING:
                self._waiting.popleft()

    def tail(self) -> str:
        with self._lock:
            return "\n".join(self._tail)

    def close(self, timeout: float = 5.0) -> None:
        self._closed.set()
        self._shipper.join(timeout)

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
        client = self._role.client("logs", attempts=1)  # a stream tries again by itself
        # A stack may have made the group already, and a role that may only write to it is enough.
        with contextlib.suppress(ClientError, BotoCoreError):
            client.create_log_group(logGroupName=self.group)
        with contextlib.suppress(ClientError, BotoCoreError):
            client.create_log_stream(logGroupName=self.group, logStreamName=self.stream)
        return client

    def _next_batch(self) -> list[dict[str, Any]]:
        with self._lock:
            lines = islice(self._waiting, _LINES_TOGETHER)
            sizes = accumulate(len(line["message"].encode()) + _BYTES_MORE for line in lines)
            fitting = sum(size <= _BYTES_TOGETHER for size in sizes)
            return [self._waiting.popleft() for _ in range(fitting)]


def read_output(output: IO[bytes], sink: Callable[[str], None]) -> threading.Thread:
    """Hand every line that a program prints to a function, in a thread that ends with the output.

    A process that left its group may hold the output open: join the thread with a limit of `OUTPUT_SECONDS`.
    """

    def run() -> None:
        with output:
            while line := output.readline(_MAX_LINE_BYTES):
                sink(line.decode(errors="replace").rstrip("\r\n"))

    thread = threading.Thread(target=run, name="output", daemon=True)
    thread.start()
    return thread
