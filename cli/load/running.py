"""The steps of a load test, and the knee: the highest rate at which latency and errors are still within the goal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cli.console import console, show
from cli.errors import WorkFailedError
from cli.load.generator import Result, open_loop, poisson_times
from cli.load.target import Target, check

#: Before each step, at its rate and not counted: new connections, new execution environments.
LEAD_SECONDS = 2.0
#: Of all requests of a step; 429 and 503 are among them.
_MAX_ERROR_SHARE = 0.01
#: The generator itself is the limit when more than 5% of its requests leave later than this share of the goal.
_LATE_SHARE_OF_GOAL = 0.1
_TOO_LATE = "this machine sends too late"
_TIMEOUT_SECONDS = 60.0
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
        others = Counter(r.fault for r in results if r.fault and r.status not in (_THROTTLED, _UNAVAILABLE))
        latencies = [result.latency_ms for result in results if not result.fault]
        p50, p95, p99 = map(float, np.percentile(latencies or [np.nan], (50, 95, 99)))
        late = float(np.percentile([(result.sent - result.scheduled) * 1000 for result in results], 95))
        counts = len(results), len(latencies), wrong[_THROTTLED], wrong[_UNAVAILABLE]
        return cls(rate, *counts, dict(others), p50, p95, p99, late, instances)

    def broken(self, goal_ms: float) -> str:
        """Say what of the goal the step broke, in a few words; nothing when it held."""
        if self.late_ms > goal_ms * _LATE_SHARE_OF_GOAL:
            return _TOO_LATE
        if (share := 1 - self.right / self.requests) > _MAX_ERROR_SHARE:
            return f"{share:.1%} errors"
        return "" if self.p95_ms <= goal_ms else f"p95 over {goal_ms:g} ms"


def find_knee(steps: Sequence[Step], goal_ms: float) -> Step | None:
    """Return the step of the highest rate that held the goal, or None."""
    return max((step for step in steps if not step.broken(goal_ms)), key=lambda step: step.rate, default=None)


def measure(target: Target, rates: Sequence[float], seconds: int, goal_ms: float) -> list[Step]:
    """Load the target with one rate after the other until the goal breaks; Ctrl-C ends with the complete steps.

    A WorkFailedError says that not even one request gets an answer.
    """
    (first,) = open_loop(target.calls()[:1], [0.0], check, _TIMEOUT_SECONDS)
    if first.fault:
        raise WorkFailedError(f"{target.url} does not answer a single request: {first.fault}.")
    console.print("rate/s  right p50 ms p95 ms p99 ms    429    503  other instances")
    steps: list[Step] = []
    try:
        for number, rate in enumerate(rates):
            steps.append(step := _measure_step(target, rate, seconds, number))
            faults = (f"{count} x {fault}" for fault, count in step.faults.items())
            verdict = "; ".join((step.broken(goal_ms) or "holds", *faults))
            console.print(
                f"{rate:6g} {step.right:6} {step.p50_ms:6.0f} {step.p95_ms:6.0f} {step.p99_ms:6.0f} {step.throttled:6} "
                f"{step.unavailable:6} {sum(step.faults.values()):6} {step.instances or '':9}  {verdict}"
            )
            if step.broken(goal_ms):
                break
    except KeyboardInterrupt:
        console.print("interrupted: what follows is of the steps above")
    return steps


def _measure_step(target: Target, rate: float, seconds: int, number: int) -> Step:
    times = poisson_times(rate, seconds + LEAD_SECONDS, seed=number) or [LEAD_SECONDS]
    before = target.instances()
    results = open_loop(target.calls(), times, check, _TIMEOUT_SECONDS)
    after = target.instances()
    counted = [result for result in results if result.scheduled >= LEAD_SECONDS] or results
    # The most of both, so that the rate of an instance is not overestimated when scaling started one meanwhile.
    return Step.of(rate, counted, None if before is None or after is None else max(before, after))


def report(steps: Sequence[Step], goal_ms: float, output: Path) -> float | None:
    """Write the figures and the chart, name the knee, and return the rate of an instance at it, if there are instances.

    A WorkFailedError says that no step was measured, or none held the goal.
    """
    if not steps:
        raise WorkFailedError("No step was measured to its end.")
    from cli.charts import draw_knee  # matplotlib

    knee = find_knee(steps, goal_ms)
    per_instance = knee.rate / knee.instances if knee and knee.instances else None
    figures = {"goal_p95_ms": goal_ms, "knee_rate": knee and knee.rate, "rate_per_instance": per_instance}
    document = {**figures, "steps": [asdict(step) for step in steps]}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=2) + "\n")
    show(document)
    chart = output.with_suffix(".png")
    draw_knee(steps, knee, goal_ms, chart)
    console.print(f"Figures: {output}  Chart: {chart}")
    if steps[-1].broken(goal_ms) == _TOO_LATE:
        console.print("This machine was the limit, not the model, which may bear more: use a larger or an idle one.")
    if knee is None:
        raise WorkFailedError(f"No rate held p95 <= {goal_ms:g} ms.", "Begin lower (--rate), or allow more (--p95).")
    each = f", {per_instance:.3g} for each of {knee.instances} instance(s)" if per_instance else ""
    console.print(f"Knee: {knee.rate:g} requests/s hold p95 <= {goal_ms:g} ms{each}.")
    if not steps[-1].broken(goal_ms):
        console.print("No rate broke the goal, so the knee is higher: go on with a higher rate.")
    return per_instance
