"""The charts of load tests and plans; matplotlib is imported here and for tuning only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cli.load.knee import Step
from cli.planning.offers import Offer
from cli.planning.traffic import Series


def draw_knee(steps: Sequence[Step], knee: Step | None, goal_ms: float, file: Path) -> None:
    """Write the latencies of all steps over their rates, the share of errors below."""
    figure = _figure()
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


def draw_plan(offer: Offer, traffic: Series, file: Path) -> None:
    """Write traffic and, where there are any, instances in service over time."""
    figure = _figure()
    axes, hours = figure.subplots(), np.arange(len(traffic)) / 3600
    axes.plot(hours, traffic, color="tab:blue", label="requests/s")
    axes.set(xlabel="hours", ylabel="requests/s", title=offer.name, ylim=(0, None))
    if offer.instances is not None:
        right = axes.twinx()
        right.step(hours, offer.instances, where="post", color="tab:orange", label="instances")
        right.set(ylabel="instances in service", ylim=(0, None))
        figure.legend(loc="outside lower center", ncols=2)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def _figure() -> Figure:
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
