"""The closed loop of `cli.load`, in which every answer is compared with a reference: a fast wrong server cannot win.

The callers share the processor with what they measure: what they take is part of the result.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.measuring import tree_cpu_seconds
from cli.load.generator import Call, closed_loop

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

    def fault(self, status: int, body: bytes) -> str | None:
        """Say what is wrong with a response, whose JSON has `predictions`, the likeliest first."""
        if status != 200:
            return f"HTTP status {status}: {body[:300].decode(errors='replace')}"
        try:
            best = json.loads(body)["predictions"][0]
            return self.difference(best["label"], float(best["probability"]))
        except (ValueError, TypeError, LookupError):
            return f"not an answer: {body[:300].decode(errors='replace')}"

    def difference(self, label: str, probability: float) -> str | None:
        """Say what was expected and what came, where that is not the same."""
        # Written so that NaN is wrong, too.
        if label == self.label and abs(probability - self.probability) <= TOLERANCE:
            return None
        return f"{label} with {probability:.4f}, but the reference says {self.label} with {self.probability:.4f}"


@dataclass(frozen=True, slots=True)
class Load:
    """What one load gave, within the seconds of measuring: warming up and draining are not in them."""

    seconds: float
    answers: int  # right ones, that came within the seconds
    #: From sending to the checked answer, of every request that was sent within the seconds: each of them is waited
    #: for, or a load would show no latency that is longer than itself.
    latencies_ms: tuple[float, ...]
    generator_cpu_seconds: float  # that the callers themselves took
    server_cpu_seconds: float | None = None  # that the called processes took; None: it is not known which they are

    @property
    def per_second(self) -> float:
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
        p50, p95 = np.percentile(self.latencies_ms, (50, 95)).tolist() if self.latencies_ms else (None, None)
        return {
            "answers": self.answers,
            "seconds": self.seconds,
            "per_second": self.per_second,
            "p50_ms": p50,
            "p95_ms": p95,
            "generator_share": self.generator_share,
            "cpu_ms": self.cpu_ms,
        }


def run_load(
    calls: Sequence[tuple[Call, Expected]], clients: int, seconds: float, warm_up_seconds: float, pid: int | None = None
) -> Load:
    """Call a server with so many callers at once, each with one request on the way; requests are sent in turn.

    `pid` is the server's process, whose processor time is measured with that of its descendants. WrongAnswerError at
    the first answer that is wrong or missing.
    """
    expected = {id(call): right for call, right in calls}
    marks: list[tuple[float, float, float]] = []

    def mark() -> None:
        server_seconds = tree_cpu_seconds(pid) if pid else 0.0
        marks.append((asyncio.get_running_loop().time() - begin, time.process_time(), server_seconds))

    async def measure() -> None:
        await asyncio.sleep(warm_up_seconds)
        mark()
        await asyncio.sleep(seconds)
        mark()

    def check(call: Call, status: int, body: bytes) -> str | None:
        return expected[id(call)].fault(status, body)

    begin = time.monotonic()  # asyncio's clock
    results = asyncio.run(closed_loop([call for call, _ in calls], clients, measure, check, _TIMEOUT_SECONDS))
    if fault := next((result.fault for result in results if result.fault), None):
        raise WrongAnswerError(f"{calls[0][0].url}: {fault}")
    (start, cpu_start, server_start), (end, cpu_end, server_end) = marks
    answers = sum(start <= result.ended <= end for result in results)
    latencies = tuple(result.latency_ms for result in results if start <= result.scheduled <= end)
    server_seconds = server_end - server_start if pid else None
    return Load(end - start, answers, latencies, cpu_end - cpu_start, server_seconds)
