"""Calls functions with what users write, in processes of their own: a few characters of it could hold the server."""

from __future__ import annotations

import contextlib
import json
import math
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

#: For calls while the event loop goes on. As many may be endless at the same time, before others wait for them.
THREADS = ThreadPoolExecutor(4, "evaluator")
_PROGRAM = f"import sys; sys.path[:] = sys.argv[1:]; from {__name__} import serve; serve()"
_MOST_MEMORY, _MOST_BYTES = 1024**3, 64 * 1024**2

#: Is told of each process, to end it with the server.
adopt: Callable[[subprocess.Popen[bytes]], object] = id
_free: list[tuple[subprocess.Popen[bytes], Connection]] = []


def search(pattern: str, texts: list[str]) -> list[tuple[int, str]]:
    """Give the numbers of the texts in which a regular expression is found, each with its first group."""
    found = ((number, re.search(pattern, text)) for number, text in enumerate(texts))
    return [(number, match[1] or "") for number, match in found if match]


def call(function: Callable[..., Any], arguments: tuple[Any, ...], until: float | None = None) -> Any:
    """Call a function, for 2 seconds at most or until a moment of the monotonic clock; it answers with what JSON has.

    A ValueError is its own error, or that its process has ended, a TimeoutError that it takes too long.
    """
    seconds = 2.0 if until is None else max(until - time.monotonic(), 0.01)
    try:
        process, connection = next(each for each in iter(_free.pop, None) if each[0].poll() is None)
    except IndexError:
        process, connection = _started()
    try:
        connection.send((function, arguments, seconds))
        if not connection.poll(seconds):
            raise TimeoutError(f"This takes longer than {seconds:.0f} seconds.")
        result, error = json.loads(connection.recv_bytes(_MOST_BYTES))
    except (EOFError, OSError) as wrong:
        process.kill()
        process.wait()
        if isinstance(wrong, TimeoutError):
            raise
        raise ValueError("This needed too much memory, or its process was ended.") from None
    _free.append((process, connection))
    if error is not None:
        raise ValueError(error)
    return result


def _started() -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-I", "-c", _PROGRAM, *sys.path]
        process = subprocess.Popen(command, stdin=theirs.fileno(), env={}, start_new_session=True)
    adopt(process)
    return process, Connection(ours.detach())


def serve() -> None:
    """Do the calls of a server, on the socket that is standard input, until it is gone."""
    with contextlib.suppress(ValueError):  # where a system has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    connection = Connection(sys.stdin.fileno())
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            function, arguments, seconds = connection.recv()
            most = math.ceil(time.process_time() + seconds) + 1  # for when the server is killed before it ends this
            resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))
            try:
                answer = json.dumps((function(*arguments), None))
            except MemoryError:
                return  # only its end gives all of the memory back
            except Exception as wrong:
                answer = json.dumps((None, str(wrong)))
            connection.send_bytes(answer.encode())
