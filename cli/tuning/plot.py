"""A tuning job in one picture: what each training job tried and reached, and how the best result came about."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from math import log
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cli.console import plain
from cli.tuning.jobs import Tuning, objective

_SIZE_INCHES = (12.0, 4.8)
_TICKS = 5
_TEXT: dict[str, Any] = {"parse_math": False}  # a "$" in a name is no formula


def draw_tuning(tuning: Tuning, path: Path) -> None:
    """Write the picture; there must be at least one result.

    Left, parallel coordinates: one line a training job through its tuned values to its objective, dark for good.
    Right: the objective of every training job in the order of their starts, and the best so far.

    Parameters
    ----------
    path : Path
        Its suffix chooses the format: .svg, .png, .pdf.
    """
    jobs = [job for job in tuning.jobs if objective(job) is not None]
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _parallel_coordinates(left, tuning, jobs)
    _best_so_far(right, tuning, jobs)
    unfinished = len(tuning.jobs) - len(jobs)
    note = f" (without a result, so not shown: {unfinished})" if unfinished else ""
    figure.suptitle(plain(f"{tuning.name}: {tuning.metric}{note}"), fontsize=11, **_TEXT)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _parallel_coordinates(axes: Axes, tuning: Tuning, jobs: list[dict[str, Any]]) -> None:
    results = [_result(job) for job in jobs]
    places = [*(_Place.of(tuning, name, jobs) for name in tuning.tuned), _Place.numbers(tuning.metric, results)]
    colours = colormaps["viridis" if tuning.minimize else "viridis_r"]
    shade = Normalize(min(results), max(results))
    # The best last, so that it lies on top.
    for job in sorted(jobs, key=_result, reverse=tuning.minimize):
        values: list[Any] = [*(job["TunedHyperParameters"][name] for name in tuning.tuned), _result(job)]
        best = tuning.best is not None and job["TrainingJobName"] == tuning.best["TrainingJobName"]
        heights = [place.height(value) for place, value in zip(places, values, strict=True)]
        style: dict[str, Any] = {"linewidth": 3.0, "marker": "o"} if best else {"linewidth": 1.2, "alpha": 0.8}
        axes.plot(range(len(places)), heights, color=colours(float(shade(_result(job)))), **style)
    for position, place in enumerate(places):
        axes.axvline(position, color="0.7", linewidth=0.8, zorder=0)
        for height, label in place.ticks:
            axes.text(position + 0.02, height, plain(label), fontsize=8, va="center", bbox=_LABEL_BOX, **_TEXT)
    axes.set_xticks(range(len(places)), [plain(place.name) for place in places], **_TEXT)
    axes.set_xlim(-0.1, len(places) - 0.75)
    axes.set_ylim(-0.05, 1.05)
    axes.set_yticks([])
    axes.set_frame_on(False)
    axes.set_title("What was tried (thick: the best)", fontsize=10)


_LABEL_BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}


class _Place:
    """Where values lie on one vertical axis, whose ends are 0 and 1."""

    def __init__(self, name: str, height: Callable[[Any], float], ticks: list[tuple[float, str]]) -> None:
        self.name, self.height, self.ticks = name, height, ticks

    @classmethod
    def of(cls, tuning: Tuning, name: str, jobs: list[dict[str, Any]]) -> _Place:
        """The axis of a tuned hyperparameter."""
        if name in tuning.choices:
            values = tuning.choices[name]
            step = 1 / max(1, len(values) - 1)
            heights = {value: index * step for index, value in enumerate(values)}
            return cls(name, heights.__getitem__, [(height, value) for value, height in heights.items()])
        tried = [float(job["TunedHyperParameters"][name]) for job in jobs]
        return cls.numbers(name, tried, logarithmic=name in tuning.logarithmic)

    @classmethod
    def numbers(cls, name: str, values: list[float], *, logarithmic: bool = False) -> _Place:
        """An axis from the least to the greatest of these values."""
        low, high = min(values), max(values)
        if low == high:
            return cls(name, lambda _: 0.5, [(0.5, f"{low:.3g}")])
        shares = [step / (_TICKS - 1) for step in range(_TICKS)]
        if logarithmic:
            ticks = [(share, f"{low * (high / low) ** share:.2g}") for share in shares]
            return cls(name, lambda value: log(float(value) / low) / log(high / low), ticks)
        ticks = [(share, f"{low + share * (high - low):.3g}") for share in shares]
        return cls(name, lambda value: (float(value) - low) / (high - low), ticks)


def _best_so_far(axes: Axes, tuning: Tuning, jobs: list[dict[str, Any]]) -> None:
    results = [_result(job) for job in jobs]
    numbers = [tuning.jobs.index(job) + 1 for job in jobs]
    axes.plot(numbers, results, "o", color="0.55", markersize=5, label="one training job")
    best = list(accumulate(results, min if tuning.minimize else max))
    axes.step(numbers, best, where="post", color="tab:blue", linewidth=2, label="best so far")
    axes.set_xlabel("training job")
    axes.set_ylabel(plain(tuning.metric), **_TEXT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92")
    axes.legend(frameon=False, fontsize=9)
    axes.set_title("How the best was found", fontsize=10)


def _result(job: dict[str, Any]) -> float:
    value = objective(job)
    assert value is not None
    return value
