"""The chart of a load test: latencies over the rate, with the goal and the knee."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cli.load.knee import Step


def draw_knee(steps: Sequence[Step], knee: Step | None, goal_ms: float, file: Path) -> None:
    """Write the latencies of all steps over their rates, the share of errors below."""
    with matplotlib.rc_context():
        figure = Figure(figsize=(8, 6), layout="constrained")
        FigureCanvasAgg(figure)
        latency, errors = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        ordered = sorted(steps, key=lambda step: step.rate)
        rates = [step.rate for step in ordered]
        for name in ("p50_ms", "p95_ms", "p99_ms"):
            latency.plot(rates, [getattr(step, name) for step in ordered], marker="o", label=name.removesuffix("_ms"))
        latency.axhline(goal_ms, linestyle="--", color="grey", label=f"goal, p95 <= {goal_ms:g} ms")
        if knee:
            latency.axvline(knee.rate, linestyle=":", color="black", label=f"knee, {knee.rate:g} requests/s")
        latency.set(yscale="log", ylabel="latency from the scheduled time, ms")
        latency.legend()
        errors.plot(rates, [100 * (1 - step.right / step.requests) for step in ordered], marker="o", color="tab:red")
        errors.set(xlabel="requests/s", ylabel="errors, %", ylim=(0, None))
        figure.savefig(file)
