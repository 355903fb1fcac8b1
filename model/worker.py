"""The program of one worker process: it owns one predictor and answers one request at a time.

`WorkerPool` starts it with one end of a socket pair. It says once whether the model works, then reads
requests and writes answers until the other end is closed. Separate processes, because a native decoder or
runtime that crashes on a hostile picture must take neither the other requests nor the health check with it, and
because one single-threaded process per vCPU is several times faster than one process with many threads.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import sys
from typing import BinaryIO

from .artifact import ArtifactError
from .invocation import answer
from .logs import configure_logging
from .predictor import Predictor
from .serving_settings import ServingSettings

# Lengths of the body, the content type and the custom attributes, which follow in this order.
REQUEST_HEADER = struct.Struct(">III")
# Status and length of the body, which follows. The first one is about the worker itself: READY or FAILED.
ANSWER_HEADER = struct.Struct(">HI")
READY = 0
FAILED = 1

logger = logging.getLogger(__name__)


def main() -> int:
    """Serve the socket whose file descriptor is the program's only argument; return the exit status."""
    # A stop is the parent's business: it finishes what has begun, then closes the socket. Signals
    # to the whole process group must not cut off the request at hand.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = ServingSettings.from_environment(os.environ)
    configure_logging(settings.log_level)
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rb") as requests:
        try:
            return _serve(connection, requests, settings)
        except OSError:
            logger.warning("The server's process went away; so does this worker, nobody wants its answers any more")
            return 1


def _serve(connection: socket.socket, requests: BinaryIO, settings: ServingSettings) -> int:
    try:
        predictor = Predictor.load(settings.model_dir, settings.engine, max_pixels=settings.max_pixels)
    except ArtifactError as error:
        _send(connection, FAILED, str(error).encode())
        return 1
    _send(connection, READY, b"")
    while header := requests.read(REQUEST_HEADER.size):
        body, content_type, custom_attributes = (requests.read(length) for length in REQUEST_HEADER.unpack(header))
        result = answer(predictor, body, content_type.decode("latin-1"), custom_attributes.decode("latin-1"))
        _send(connection, result.status, result.body)
    return 0


def _send(connection: socket.socket, status: int, body: bytes) -> None:
    connection.sendall(ANSWER_HEADER.pack(status, len(body)) + body)


if __name__ == "__main__":
    sys.exit(main())
