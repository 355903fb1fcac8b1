"""A closed loop of callers that checks every answer, so that a fast wrong server cannot win.

Each caller keeps one connection and sends its next image when it has the last one's answer. The callers share
the processor with what they measure, so they are kept light (threads that sleep in the system, requests that are
put together before), and what they take is part of the result.
"""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.measuring import percentile, tree_cpu_seconds

# Another engine, or another number of threads, sums in another order.
TOLERANCE = 2e-3
_TIMEOUT_SECONDS = 120


class WrongAnswerError(Exception):
    """A server answered something else than the reference, or not at all; its speed means nothing."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the reference says about an image: its likeliest label and that label's probability, 0 to 1."""

    label: str
    probability: float

    def check(self, status: int, body: bytes) -> None:
        """Compare an answer with this.

        Parameters
        ----------
        status : int
            HTTP's.
        body : bytes
            A JSON document with `predictions`, the likeliest first, each with `label` and `probability`.

        Raises
        ------
        WrongAnswerError
            Saying what was expected and what came.
        """
        if status != 200:
            raise WrongAnswerError(f"HTTP status {status}: {body[:300].decode(errors='replace')}")
        try:
            best = json.loads(body)["predictions"][0]
            label, probability = best["label"], float(best["probability"])
        except (ValueError, TypeError, LookupError):
            raise WrongAnswerError(f"not an answer: {body[:300].decode(errors='replace')}") from None
        self.compare(label, probability)

    def compare(self, label: str, probability: float) -> None:
        """Compare a label and its probability with this.

        Raises
        ------
        WrongAnswerError
            Saying what was expected and what came.
        """
        # Written so that NaN is wrong, too.
        if label != self.label or not abs(probability - self.probability) <= TOLERANCE:
            raise WrongAnswerError(
                f"{label} with {probability:.4f}, but the reference says {self.label} with {self.probability:.4f}"
            )


@dataclass(frozen=True, slots=True)
class Call:
    """One request and its right answer."""

    url: str
    headers: dict[str, str]
    body: bytes
    expected: Expected


@dataclass(frozen=True, slots=True)
class Load:
    """What one load gave.

    Attributes
    ----------
    seconds : float
        Of measuring; warming up and draining are not in it.
    answers : int
        Right answers that came within these seconds.
    latencies_ms : tuple of float
        From sending to the checked answer, of every request that was sent within these seconds: each of them is waited
        for, or a load would show no latency that is longer than itself.
    generator_cpu_seconds : float
        Processor time that the callers themselves took within these seconds.
    server_cpu_seconds : float or None
        Processor time that the called processes took; None when it is not known which they are.
    """

    seconds: float
    answers: int
    latencies_ms: tuple[float, ...]
    generator_cpu_seconds: float
    server_cpu_seconds: float | None = None

    @property
    def per_second(self) -> float:
        """Right answers per second."""
        return self.answers / self.seconds

    @property
    def generator_share(self) -> float:
        """What the callers took of one vCPU, 0 to 1."""
        return self.generator_cpu_seconds / self.seconds

    @property
    def cpu_ms(self) -> float | None:
        """Processor time that the server took for an answer, in milliseconds: what neighbours hardly change."""
        if self.server_cpu_seconds is None or not self.answers:
            return None
        return self.server_cpu_seconds / self.answers * 1000

    def figures(self) -> dict[str, float | int | None]:
        """Return the summary that JSON can hold."""
        return {
            "answers": self.answers,
            "seconds": self.seconds,
            "per_second": self.per_second,
            "p50_ms": statistics.median(self.latencies_ms) if self.latencies_ms else None,
            "p95_ms": percentile(self.latencies_ms, 95) if self.latencies_ms else None,
            "generator_share": self.generator_share,
            "cpu_ms": self.cpu_ms,
        }


def run_load(
    calls: Sequence[Call], clients: int, seconds: float, warm_up_seconds: float, pid: int | None = None
) -> Load:
    """Call a server with so many callers at once.

    Parameters
    ----------
    calls : sequence of Call
        To one server; sent in turn, by whichever caller is free.
    clients : int
        Callers, each with a connection and a thread of its own.
    seconds, warm_up_seconds : float
        How long to measure, and how long to call before that.
    pid : int, optional
        The server's process, whose processor time is measured with that of its descendants.

    Raises
    ------
    WrongAnswerError
        At the first answer that is wrong or missing.
    """
    url = urlsplit(calls[0].url)
    address = (url.hostname or "", url.port or 80)
    turns = itertools.cycle([(message(call), call.expected) for call in calls])
    completed: list[tuple[float, float]] = []
    stop = threading.Event()

    def call_repeatedly() -> None:
        try:
            with socket.create_connection(address, _TIMEOUT_SECONDS) as connection:
                while not stop.is_set():
                    request, expected = next(turns)
                    began = time.perf_counter()
                    expected.check(*exchange(connection, request))
                    completed.append((began, time.perf_counter()))
        except (OSError, http.client.HTTPException) as error:
            raise WrongAnswerError(f"no answer from {calls[0].url}: {error!r}") from error
        finally:
            stop.set()  # a caller that fails ends the load

    with ThreadPoolExecutor(clients) as pool:
        callers = [pool.submit(call_repeatedly) for _ in range(clients)]
        try:
            stop.wait(warm_up_seconds)
            server_begin = tree_cpu_seconds(pid) if pid else 0.0
            begin, cpu_begin = time.perf_counter(), time.process_time()
            stop.wait(seconds)
            end, cpu_end = time.perf_counter(), time.process_time()
            server_seconds = tree_cpu_seconds(pid) - server_begin if pid else None
        finally:
            stop.set()  # each caller waits for its answer, so that the server has nothing left from this load
        for caller in callers:
            caller.result()
    answers = sum(begin <= ended <= end for _, ended in completed)
    latencies = tuple((ended - began) * 1000 for began, ended in completed if begin <= began <= end)
    return Load(end - begin, answers, latencies, cpu_end - cpu_begin, server_seconds)


def message(call: Call) -> bytes:
    """Return a call's whole HTTP request: put together once, it leaves in one write."""
    url = urlsplit(call.url)
    headers = {"Host": url.netloc, **call.headers, "Content-Length": str(len(call.body))}
    lines = [f"POST {url.path or '/'} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + call.body


def exchange(connection: socket.socket, request: bytes) -> tuple[int, bytes]:
    """Send a request over a connection that is kept, and return its answer's status and body."""
    connection.sendall(request)
    with http.client.HTTPResponse(connection, method="POST") as response:
        response.begin()
        return response.status, response.read()
