"""Runs the steps of a load test, prints a line for each, and reports the knee."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cli.console import console
from cli.errors import WorkFailedError
from cli.load.generator import open_loop, poisson_times
from cli.load.knee import TOO_LATE, Step, find_knee
from cli.load.target import Target, check

#: Before each step, at its rate and not counted: new connections, new execution environments.
LEAD_SECONDS = 2.0
_TIMEOUT_SECONDS = 60.0
_COLUMNS = ("rate/s", "right", "p50 ms", "p95 ms", "p99 ms", "429", "503", "other", "instances")


def measure(target: Target, rates: Sequence[float], seconds: int, goal_ms: float, *, until_broken: bool) -> list[Step]:
    """Load the target with one rate after the other; Ctrl-C ends with the steps that are complete.

    Raises
    ------
    WorkFailedError
        When not even one request gets an answer.
    """
    (first,) = open_loop(target.calls()[:1], [0.0], check, _TIMEOUT_SECONDS)
    if first.fault:
        raise WorkFailedError(f"{target.url} does not answer a single request: {first.fault}.")
    console.print(_row(_COLUMNS))
    steps: list[Step] = []
    try:
        for number, rate in enumerate(rates):
            steps.append(_measure_step(target, rate, seconds, number))
            broken = steps[-1].broken(goal_ms)
            console.print(_line(steps[-1], broken))
            if broken and until_broken:
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


def _line(step: Step, broken: str) -> str:
    latencies = (f"{value:.0f}" for value in (step.p50_ms, step.p95_ms, step.p99_ms))
    counts = (step.throttled, step.unavailable, sum(step.faults.values()), step.instances or "")
    faults = ", ".join(f"{number} x {fault}" for fault, number in step.faults.items())
    verdict = "; ".join(filter(None, (broken or "holds", faults)))
    return f"{_row((f'{step.rate:g}', step.right, *latencies, *counts))}  {verdict}"


def _row(values: Sequence[object]) -> str:
    return " ".join(f"{value!s:>{max(len(name), 6)}}" for value, name in zip(values, _COLUMNS, strict=True))


def report(steps: Sequence[Step], goal_ms: float, output: Path) -> float | None:
    """Write the figures and the chart, name the knee, and return the rate of an instance at it, if there are instances.

    Raises
    ------
    WorkFailedError
        When no step was measured, or none held the goal.
    """
    if not steps:
        raise WorkFailedError("No step was measured to its end.")
    from cli.charts import draw_knee  # matplotlib

    knee = find_knee(steps, goal_ms)
    per_instance = knee.rate / knee.instances if knee and knee.instances else None
    figures = {"goal_p95_ms": goal_ms, "knee_rate": knee and knee.rate, "rate_per_instance": per_instance}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({**figures, "steps": [asdict(step) for step in steps]}, indent=2) + "\n")
    chart = output.with_suffix(".png")
    draw_knee(steps, knee, goal_ms, chart)
    console.print(f"Figures: {output}  Chart: {chart}")
    if knee is None:
        raise WorkFailedError(
            f"No rate held p95 <= {goal_ms:g} ms.", "Begin lower (--rate), or allow a longer latency (--p95)."
        )
    each = f", {per_instance:.3g} for each of {knee.instances} instance(s)" if per_instance else ""
    console.print(f"Knee: {knee.rate:g} requests/s hold p95 <= {goal_ms:g} ms{each}.")
    verdicts = {step.broken(goal_ms) for step in steps}
    if TOO_LATE in verdicts:
        console.print("This machine was the limit, not the model, which may bear more: use a larger or an idle one.")
    elif verdicts == {""}:
        console.print("No rate broke the goal, so the knee is higher: go on with a higher rate.")
    return per_instance
