"""The program of one worker process: it owns one predictor and answers one request at a time.

`WorkerPool` starts it with one end of a socket pair. It says once whether the model works, then reads
requests and writes answers until the other end is closed. Separate processes, because a native decoder or
runtime that crashes on a hostile image must take neither the other requests nor the health check with it, and
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

from ..core.artifact import ArtifactError
from ..core.logs import configure_logging
from ..core.machine import return_freed_memory
from ..core.predictor import FloatArray, Predictor
from .invocation import Answer, classify
from .request import Options
from .settings import ServingSettings

# The image's length, the options, and whether to compute it with several threads; then the image.
REQUEST_HEADER = struct.Struct(">II??")
# Status, seconds of decoding and of inference, and length of the body, which follows. The first one is about the worker
# itself: READY or FAILED.
ANSWER_HEADER = struct.Struct(">HffI")
READY = 0
FAILED = 1

# What the timer of `_WorkerPredictor` ends the process with.
DECODED_TOO_LONG = signal.SIGPROF

logger = logging.getLogger(__name__)


class _WorkerPredictor(Predictor):
    """Ends the process when an image takes too long to decode: nothing but a signal can interrupt a decoder."""

    decode_seconds = 0  # set when it is loaded

    def prepare(self, data: bytes) -> FloatArray:
        """Decode an image as `Predictor.prepare`, in at most `decode_seconds` of processor time."""
        signal.setitimer(signal.ITIMER_PROF, self.decode_seconds)
        try:
            return super().prepare(data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> int:
    """Serve the socket whose file descriptor is the first argument; return the exit status.

    The second one is the number of threads for an image that the server says to compute with several.
    """
    # A stop is the parent's business: it finishes what has begun, then closes the socket. Signals
    # to the whole process group must not cut off the request at hand.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(DECODED_TOO_LONG, signal.SIG_DFL)
    settings = ServingSettings.from_environment(os.environ)
    configure_logging(settings.log_level)
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rb") as requests:
        try:
            return _serve(connection, requests, settings, lone_threads=int(sys.argv[2]))
        except OSError:
            logger.warning("The server's process went away; so does this worker, nobody wants its answers any more")
            return 1


def _serve(connection: socket.socket, requests: BinaryIO, settings: ServingSettings, *, lone_threads: int = 1) -> int:
    def load(threads: int) -> _WorkerPredictor:
        predictor = _WorkerPredictor.load(settings.model_dir, threads, max_pixels=settings.max_pixels)
        predictor.decode_seconds = settings.decode_seconds
        return predictor

    try:
        usual = load(settings.threads)
        several_threads = load(lone_threads) if lone_threads > settings.threads else usual
    except ArtifactError as error:
        _send(connection, Answer(FAILED, str(error).encode()))
        return 1
    return_freed_memory()
    _send(connection, Answer(READY, b""))
    while header := requests.read(REQUEST_HEADER.size):
        length, top_k, scores, with_several = REQUEST_HEADER.unpack(header)
        predictor = several_threads if with_several else usual
        answer = classify(predictor, requests.read(length), Options(top_k, scores))
        if answer.status == 500:
            try:
                predictor.check()
            except ArtifactError as error:
                logger.error("The model does not run any more: %s", error)
                return 1  # without an answer: another worker may have one
        _send(connection, answer)
    return 0


def _send(connection: socket.socket, answer: Answer) -> None:
    decode, inference = answer.timing or (0.0, 0.0)
    connection.sendall(ANSWER_HEADER.pack(answer.status, decode, inference, len(answer.body)) + answer.body)


if __name__ == "__main__":
    sys.exit(main())
