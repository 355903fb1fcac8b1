"""What the report's charts show, in the coordinates of their SVG; `templates/charts.html` draws them.

A plotting library would fix the colours, so that a chart could not follow the reader's light or dark scheme.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Of more classes than this the confusion matrix shows those with the most mistakes.
MATRIX_CLASSES = 150
_GLYPH = 0.62  # the mean width of a letter by its size, in the widest of the usual fonts

Tick = tuple[float, str]


@dataclass(frozen=True)
class Chart:
    """A chart between two axes."""

    description: str  # for readers who cannot see the chart
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    # By the class that the style sheet colours it by, a line's points.
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    best_epoch: int | None = None  # marked by a vertical line
    bars: list[dict[str, Any]] = field(default_factory=list)  # of a reliability diagram

    # In the SVG's own units, which are pixels on a phone; a wider screen shows two charts beside each other.
    width, height = 360, 230
    left, top, right, bottom = 44.0, 10.0, 342.0, 196.0

    def x(self, value: float) -> float:
        """Return where a value lies from left to right."""
        share = (value - self.x_range[0]) / (self.x_range[1] - self.x_range[0])
        return round(self.left + share * (self.right - self.left), 2)

    def y(self, value: float) -> float:
        """Return where a value lies from top to bottom."""
        share = (value - self.y_range[0]) / (self.y_range[1] - self.y_range[0])
        return round(self.bottom - share * (self.bottom - self.top), 2)


def line_chart(
    lines: Mapping[str, Sequence[float]],
    *,
    description: str,
    y_format: Callable[[float], str],
    best_epoch: int | None = None,
) -> Chart:
    """Return lines over the epochs: by their style the values at epoch 1, 2, …; at least one finite value each."""
    epochs = max(map(len, lines.values()))
    values = [value for line in lines.values() for value in line]
    y_ticks = ticks(min(values), max(values))
    step = math.ceil(ticks(0, epochs)[1])  # epochs are whole numbers
    x_ticks = sorted({1, *range(step, epochs + 1, step)})
    if len(x_ticks) > 1 and x_ticks[1] - x_ticks[0] < step / 2:
        del x_ticks[1]  # it would touch the 1
    return Chart(
        description,
        x_range=(1, epochs) if epochs > 1 else (0, 2),  # one epoch alone is a point in the middle
        y_range=(y_ticks[0], y_ticks[-1]),
        x_label="epoch",
        x_ticks=[(tick, f"{tick:g}") for tick in x_ticks],
        y_ticks=[(tick, y_format(tick)) for tick in y_ticks],
        lines={style: list(enumerate(line, start=1)) for style, line in lines.items()},
        best_epoch=best_epoch,
    )


def reliability_diagram(bins: Sequence[dict[str, Any]], *, description: str) -> Chart:
    """Return accuracy over confidence of `calibration.reliability`'s bins; on the diagonal it can be believed."""
    all_images = sum(one["images"] for one in bins)
    bars = [
        # Bins with few images are pale: their accuracy says little.
        one
        | {"from": index / len(bins), "to": (index + 1) / len(bins)}
        | {"strength": 0.35 + 0.65 * min(1.0, len(bins) * one["images"] / all_images)}
        for index, one in enumerate(bins)
        if one["images"]
    ]
    quarters = [(quarter / 4, f"{quarter / 4:.0%}") for quarter in range(5)]
    return Chart(description, (0, 1), (0, 1), "confidence", quarters, quarters, bars=bars)


def confusion_matrix(
    counted: Sequence[tuple[int, int, int]], images: Sequence[int], labels: Sequence[str]
) -> dict[str, Any]:
    """Return which class was taken for which; rows are the true classes, columns the predicted ones.

    Few classes get large cells with their counts in them; of many, the cells are coloured only, and the reader scrolls.
    `counted` has a true class, a predicted one and a count for each cell that is not 0, `images` a count per class.
    """
    mistakes = Counter[int]()
    for true, predicted, count in counted:
        mistakes.update({true: count, predicted: count} if true != predicted else {})
    most = sorted(sorted(range(len(labels)), key=lambda one: -mistakes[one])[:MATRIX_CLASSES])
    place = {one: number for number, one in enumerate(most)}
    labels = [labels[one] for one in most]
    classes = len(labels)
    cell, size = (30.0, 12.0) if classes <= 16 else (22.0, 11.0) if classes <= 40 else (12.0, 10.0)
    longest = 22 if classes <= 40 else 28
    shown = [label if len(label) <= longest else label[: longest - 1] + "…" for label in labels]
    margin = round(max(map(len, shown)) * size * _GLYPH) + 12
    cells = [
        {"row": place[true], "column": place[predicted], "count": count}
        | {"of": images[true], "share": count / images[true]}
        | {"shown": cell >= 2 * len(str(count)) * size * _GLYPH * 0.75}
        for true, predicted, count in counted
        if true in place and predicted in place
    ]
    side = margin + classes * cell + 2
    return {
        **{"cell": cell, "size": size, "margin": margin, "side": side},
        **{"names": list(zip(shown, labels, strict=True)), "cells": cells},
    }


def ticks(low: float, high: float) -> list[float]:
    """Return 3 to 7 round numbers at equal distances, the first at or below `low` and the last at or above `high`."""
    if not high > low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    raw = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]
