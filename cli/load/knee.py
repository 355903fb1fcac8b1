"""The steps of a load test, and the knee: the highest rate at which latency and errors are still within the goal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cli.load.generator import Result

#: Of all requests of a step; 429 and 503 are among them.
MAX_ERROR_SHARE = 0.01
#: The generator itself is the limit when more than 5% of its requests leave later than this share of the goal.
_LATE_SHARE_OF_GOAL = 0.1
TOO_LATE = "this machine sends too late"
_THROTTLED, _UNAVAILABLE = 429, 503


@dataclass(frozen=True, slots=True)
class Step:
    """What one rate gave."""

    rate: float  # requests per second that left
    requests: int
    right: int  # 200 with a label
    throttled: int  # 429
    unavailable: int  # 503
    faults: dict[str, int]  # the other errors, by what went wrong
    p50_ms: float  # from the scheduled time to the response, of the right ones; NaN where there is none
    p95_ms: float
    p99_ms: float
    late_ms: float  # 95% of the requests left within this time after their schedule
    instances: int | None  # in service at the most during the step; None: the endpoint is serverless

    @classmethod
    def of(cls, rate: float, results: Sequence[Result], instances: int | None) -> Step:
        """Sum up the results of a step."""
        wrong = Counter(result.status for result in results if result.fault)
        others = (r.fault for r in results if r.fault and r.status not in (_THROTTLED, _UNAVAILABLE))
        latencies = [result.latency_ms for result in results if not result.fault]
        p50, p95, p99 = np.percentile(latencies, (50, 95, 99)) if latencies else (float("nan"),) * 3
        late = float(np.percentile([(result.sent - result.scheduled) * 1000 for result in results], 95))
        counts = len(results), len(latencies), wrong[_THROTTLED], wrong[_UNAVAILABLE]
        return cls(rate, *counts, dict(Counter(others)), float(p50), float(p95), float(p99), late, instances)

    def broken(self, goal_ms: float) -> str:
        """Say what of the goal the step broke, in a few words; nothing when it held."""
        if self.late_ms > goal_ms * _LATE_SHARE_OF_GOAL:
            return TOO_LATE
        if (share := 1 - self.right / self.requests) > MAX_ERROR_SHARE:
            return f"{share:.1%} errors"
        return "" if self.p95_ms <= goal_ms else f"p95 over {goal_ms:g} ms"


def find_knee(steps: Sequence[Step], goal_ms: float) -> Step | None:
    """Return the step of the highest rate that held the goal, or None."""
    return max((step for step in steps if not step.broken(goal_ms)), key=lambda step: step.rate, default=None)
