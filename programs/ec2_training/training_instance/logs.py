"""The log: to the console, and to CloudWatch Logs within seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from itertools import islice
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

FLUSH_SECONDS = 1.0
#: PutLogEvents takes 1 MiB a request, with 26 bytes more for each line; in UTF-8 a byte may become three.
MAX_LINE_BYTES = 3072
_MAX_LINES = 100
#: Lines kept while CloudWatch does not take them; then the oldest are dropped, the console has had them.
_MAX_WAITING = 50_000


class Log:
    """One stream of a log group; `tail` has the last lines. Writing never fails and never waits for the network."""

    def __init__(self, client: Any, group: str, stream: str) -> None:
        self._client = client
        self._place = {"logGroupName": group, "logStreamName": stream}
        self._waiting: deque[dict[str, Any]] = deque(maxlen=_MAX_WAITING)
        self.tail: deque[str] = deque(maxlen=20)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._sender = threading.Thread(target=self._run, name="log", daemon=True)
        self._sender.start()

    def write(self, line: str) -> None:
        """Add one line."""
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        with self._lock:
            self.tail.append(line)
            # CloudWatch takes no empty message.
            self._waiting.append({"timestamp": int(time.time() * 1000), "message": line or " "})

    def close(self) -> None:
        """Send what is waiting, if that takes no longer than 20 seconds."""
        self._closed.set()
        self._sender.join(20.0)

    def _run(self) -> None:
        last = False
        while not last:
            last = self._closed.wait(FLUSH_SECONDS)
            try:
                self._send()
            except (ClientError, BotoCoreError) as error:
                sys.stderr.write(f"The log could not be sent: {error}\n")

    def _send(self) -> None:
        while self._waiting:
            with self._lock:
                lines = list(islice(self._waiting, _MAX_LINES))
            try:
                self._client.put_log_events(**self._place, logEvents=lines)
            except self._client.exceptions.ResourceNotFoundException:
                self._client.create_log_stream(**self._place)
                continue
            with self._lock:
                for _ in lines:
                    self._waiting.popleft()
