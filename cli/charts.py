"""The charts of load tests and the demo of scaling; matplotlib is imported here and for tuning only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from cli.load.running import Step
from cli.local.watching import SCALING, Watch


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


def draw_scaling(watch: Watch, file: Path) -> None:
    """Write requests, latency and instances over time, with the steps and the alarms of a rollout."""
    figure = _figure()
    rows = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 3))
    times = [sample.at for sample in watch.samples]
    for row, label, name in (
        (0, "offered", "offered"),
        (0, "answered right", "answered"),
        (1, "p95", "p95_ms"),
        (2, "wanted", "wanted"),
        (2, "running", "running"),
    ):
        rows[row].step(times, [getattr(sample, name) for sample in watch.samples], where="post", label=label)
    alarms = [s.at for s in watch.samples if any(not name.startswith(SCALING) for name in s.alarms)]
    rows[2].plot(alarms, [0.2] * len(alarms), "s", color="tab:red", markersize=3, label="alarm of a rollout")
    for number, (begin, end) in enumerate(watch.steps.values(), 1):
        for axes in rows:
            axes.axvspan(begin, end, color="grey", alpha=0.15 * (number % 2), linewidth=0)
        rows[0].text((begin + end) / 2, 1.03, str(number), transform=rows[0].get_xaxis_transform(), ha="center")
    names = [f"{number} {name}" for number, name in enumerate(watch.steps, 1)]
    figure.suptitle("\n".join("     ".join(names[i : i + 3]) for i in range(0, len(names), 3)), fontsize=8)
    rows[0].set(ylabel="requests/s", xlim=(0, watch.now()))
    rows[1].set(ylabel="latency, ms", ylim=(0, None))
    rows[2].set(ylabel="instances", xlabel="seconds", ylim=(0, None))
    for axes in rows:
        axes.legend(loc="upper left", fontsize=7)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def _figure() -> Figure:
    return Figure(figsize=(9, 5.5), layout="constrained")
