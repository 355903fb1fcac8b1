"""The chart of a plan: traffic, and instances in service, over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cli.planning.offers import Offer
from cli.planning.traffic import Series


def draw_plan(offer: Offer, traffic: Series, file: Path) -> None:
    """Write the chart as the file's name says (.png, .svg)."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    hours = np.arange(len(traffic)) / 3600
    axes.plot(hours, traffic, color="tab:blue")
    axes.set(xlabel="hours", ylabel="requests/s", title=offer.name, ylim=(0, None))
    if offer.instances is not None:
        right = axes.twinx()
        right.step(hours, offer.instances, where="post", color="tab:orange")
        right.set(ylabel="instances in service", ylim=(0, None))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
