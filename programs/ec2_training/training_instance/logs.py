"""The log: to the console, and to CloudWatch Logs within seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

FLUSH_SECONDS = 1.0
_CLOSE_SECONDS = 20.0
#: Limits of PutLogEvents: events, and bytes with an overhead of 26 each, a request; bytes an event.
_MAX_EVENTS = 10_000
_MAX_BATCH_BYTES = 1_048_576
_EVENT_OVERHEAD = 26
MAX_LINE_BYTES = 65_536
#: Lines kept while CloudWatch does not take them; then the oldest are dropped, the console has had them.
_MAX_WAITING = 50_000
_TAIL_LINES = 20


class Log:
    """One stream of a log group. Writing to it never fails and never waits for the network.

    Parameters
    ----------
    client
        Of CloudWatch Logs.
    """

    def __init__(self, client: Any, group: str, stream: str) -> None:
        self._client = client
        self._place = {"logGroupName": group, "logStreamName": stream}
        self._made = False
        self._waiting: deque[tuple[int, str]] = deque(maxlen=_MAX_WAITING)
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._sender = threading.Thread(target=self._send_all, name="log", daemon=True)
        self._sender.start()

    def write(self, line: str) -> None:
        """Add one line."""
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        with self._lock:
            self._tail.append(line)
            self._waiting.append((int(time.time() * 1000), line or " "))  # CloudWatch takes no empty message

    def tail(self) -> str:
        """The last lines."""
        with self._lock:
            return "\n".join(self._tail)

    def close(self) -> None:
        """Send what is waiting."""
        self._closed.set()
        self._sender.join(_CLOSE_SECONDS)

    def _send_all(self) -> None:
        while True:
            last = self._closed.wait(FLUSH_SECONDS)
            try:
                if not self._made:
                    self._make_stream()
                while batch := self._next_batch():
                    try:
                        self._client.put_log_events(
                            **self._place, logEvents=[{"timestamp": at, "message": line} for at, line in batch]
                        )
                    except Exception:
                        with self._lock:
                            self._waiting.extendleft(reversed(batch))
                        raise
            except (ClientError, BotoCoreError) as error:
                sys.stderr.write(f"The log could not be sent: {error}\n")
            if last:
                return

    def _make_stream(self) -> None:
        try:
            self._client.create_log_stream(**self._place)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceAlreadyExistsException":
                raise
        self._made = True

    def _next_batch(self) -> list[tuple[int, str]]:
        batch: list[tuple[int, str]] = []
        size = 0
        with self._lock:
            while self._waiting and len(batch) < _MAX_EVENTS:
                size += len(self._waiting[0][1].encode(errors="replace")) + _EVENT_OVERHEAD
                if size > _MAX_BATCH_BYTES and batch:
                    break
                batch.append(self._waiting.popleft())
        return batch
