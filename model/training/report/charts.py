"""The report's charts as inline SVG: a few lines, bars and cells, coloured by the page's style sheet.

Only text and numbers get in, and all text is escaped (`markupsafe`), whatever the classes are called. A plotting
library would fix the colours, so that a chart could not follow the reader's light or dark scheme, and is not part of
AWS's training image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

# In the SVG's own units, which are pixels on a phone; a wider screen shows two charts beside each other.
_WIDTH, _HEIGHT = 360.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 18.0, 10.0, 34.0
_GLYPH = 0.62  # the mean width of a letter by its size, in the widest of the usual fonts


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes
    ----------
    name : str
    values : sequence of float
        At x = 1, 2, …
    style : str
        The class that the style sheet colours it by.
    """

    name: str
    values: Sequence[float]
    style: str


class _Frame:
    """The area of a chart between its axes, from data to SVG coordinates."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self._x, self._y = x, y
        self.parts: list[Markup] = []

    def x(self, value: float) -> float:
        share = (value - self._x[0]) / (self._x[1] - self._x[0])
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 2)

    def y(self, value: float) -> float:
        share = (value - self._y[0]) / (self._y[1] - self._y[0])
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 2)

    def add(self, template: str, *values: Any) -> None:
        self.parts.append(Markup(template).format(*values))  # noqa: S704 - the templates are this module's own

    def axes(
        self,
        *,
        x_ticks: Sequence[float],
        y_ticks: Sequence[float],
        x_label: str,
        x_format: Callable[[float], str],
        y_format: Callable[[float], str],
    ) -> None:
        right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        for value in y_ticks:
            y = self.y(value)
            self.add('<line class="grid" x1="{}" y1="{}" x2="{}" y2="{}"/>', _LEFT, y, right, y)
            self.add('<text x="{}" y="{}" text-anchor="end">{}</text>', _LEFT - 6, y + 4, y_format(value))
        for value in x_ticks:
            label = x_format(value)
            self.add('<text x="{}" y="{}" text-anchor="middle">{}</text>', self.x(value), bottom + 16, label)
        self.add('<text x="{}" y="{}" text-anchor="middle">{}</text>', (_LEFT + right) / 2, bottom + 31, x_label)

    def svg(self, description: str) -> Markup:
        opening = Markup('<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">')
        return opening.format(_WIDTH, _HEIGHT, description) + Markup("").join(self.parts) + Markup("</svg>")


def line_chart(
    series: Sequence[Series], *, description: str, y_format: Callable[[float], str], best_epoch: int | None = None
) -> Markup:
    """Draw lines over the epochs.

    Parameters
    ----------
    series : sequence of Series
        At least one, each with at least one finite value.
    description : str
        What the chart shows, for who cannot see it.
    y_format : callable
        The text for a tick's value.
    best_epoch : int, optional
        Marked by a vertical line.
    """
    epochs = max(len(one.values) for one in series)
    values = [value for one in series for value in one.values]
    y_ticks = ticks(min(values), max(values))
    step = math.ceil(ticks(0, epochs)[1])  # epochs are whole numbers
    x_ticks = sorted({1, *range(step, epochs + 1, step)})
    if len(x_ticks) > 1 and x_ticks[1] - x_ticks[0] < step / 2:
        del x_ticks[1]  # it would touch the 1
    # One epoch alone is a point in the middle.
    frame = _Frame((1, epochs) if epochs > 1 else (0, 2), (y_ticks[0], y_ticks[-1]))
    frame.axes(x_ticks=x_ticks, y_ticks=y_ticks, x_label="epoch", x_format="{:g}".format, y_format=y_format)
    if best_epoch is not None:
        x = frame.x(best_epoch)
        frame.add('<line class="best" x1="{}" y1="{}" x2="{}" y2="{}"/>', x, _TOP, x, _HEIGHT - _BOTTOM)
    for one in series:
        points = [(frame.x(epoch), frame.y(value)) for epoch, value in enumerate(one.values, start=1)]
        if len(points) == 1:
            frame.add('<circle class="{} dot" cx="{}" cy="{}" r="3"/>', one.style, *points[0])
        frame.add('<polyline class="{} line" points="{}"/>', one.style, " ".join(f"{x},{y}" for x, y in points))
    return frame.svg(description)


def reliability_diagram(bins: Sequence[dict[str, Any]], *, description: str) -> Markup:
    """Draw accuracy over confidence: bars that end on the diagonal are confidence that can be believed.

    Parameters
    ----------
    bins : sequence of dict
        As `calibration.Bin` has them, of equal width.
    description : str
    """
    frame = _Frame((0, 1), (0, 1))
    quarters = [0, 0.25, 0.5, 0.75, 1]
    axes = {"x_ticks": quarters, "y_ticks": quarters, "x_format": "{:.0%}".format, "y_format": "{:.0%}".format}
    frame.axes(x_label="confidence", **axes)  # type: ignore[arg-type]
    all_images = sum(one["pictures"] for one in bins)
    for index, one in enumerate(bins):
        if not one["pictures"]:
            continue
        left, right = frame.x(index / len(bins)) + 0.75, frame.x((index + 1) / len(bins)) - 0.75
        top, bottom = frame.y(one["accuracy"]), frame.y(0)
        # Bins with few images are pale: their accuracy says little.
        strength = 0.35 + 0.65 * min(1.0, len(bins) * one["pictures"] / all_images)
        frame.add(
            '<rect class="bar" x="{}" y="{}" width="{:.2f}" height="{:.2f}" fill-opacity="{:.2f}">'
            "<title>{} images: {:.1%} sure, {:.1%} right</title></rect>",
            left, top, right - left, bottom - top, strength, one["pictures"], one["confidence"], one["accuracy"],
        )  # fmt: skip
        confidence = frame.y(one["confidence"])
        frame.add('<line class="gap" x1="{}" y1="{}" x2="{}" y2="{}"/>', left, confidence, right, confidence)
    frame.add(
        '<line class="diagonal" x1="{}" y1="{}" x2="{}" y2="{}"/>', frame.x(0), frame.y(0), frame.x(1), frame.y(1)
    )
    return frame.svg(description)


def confusion_matrix(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> Markup:
    """Draw which class was taken for which; rows are the true classes, columns the predicted ones.

    Few classes get large cells with their counts in them; of many, the cells are coloured only, and the reader scrolls.
    """
    classes = len(labels)
    cell, size = (30.0, 12.0) if classes <= 16 else (22.0, 11.0) if classes <= 40 else (12.0, 10.0)
    longest = 22 if classes <= 40 else 28
    shown = [label if len(label) <= longest else label[: longest - 1] + "…" for label in labels]
    margin = round(max(map(len, shown)) * size * _GLYPH) + 12
    side = margin + classes * cell + 2
    opening = Markup(
        '<svg class="matrix" viewBox="0 0 {0:g} {0:g}" style="width:{0:g}px" font-size="{1:g}" role="img" '
        'aria-label="Confusion matrix of {2} classes">'
    )
    row_label = Markup('<text x="{:g}" y="{:g}" text-anchor="end">{}<title>{}</title></text>')
    column_label = Markup('<text transform="translate({:g} {:g}) rotate(-90)">{}<title>{}</title></text>')
    parts = [opening.format(side, size, classes)]
    for index, (label, name) in enumerate(zip(shown, labels, strict=True)):
        baseline = margin + (index + 0.5) * cell + size * 0.35
        parts.append(row_label.format(margin - 6, baseline, label, name))
        parts.append(column_label.format(baseline, margin - 6, label, name))
    grid = Markup('<rect class="board" x="{0:g}" y="{0:g}" width="{1:g}" height="{1:g}"/>')
    parts.append(grid.format(margin, classes * cell))
    for row, counts in enumerate(matrix):
        of = sum(counts)
        for column, count in enumerate(counts):
            if count:
                parts.append(_cell(row, column, count, of, margin, cell, size, labels))
    return Markup("").join(parts) + Markup("</svg>")


def _cell(
    row: int, column: int, count: int, of: int, margin: float, cell: float, size: float, labels: Sequence[str]
) -> Markup:
    x, y, share = margin + column * cell, margin + row * cell, count / of
    style = "hit" if row == column else "miss"
    drawn = Markup(
        '<g class="cell"><title>{}</title>'
        '<rect class="{}" x="{:g}" y="{:g}" width="{:g}" height="{:g}" fill-opacity="{:.2f}"/>'
    ).format(
        f"{labels[row]} → {labels[column]}: {count} of {of} ({share:.0%})",
        style, x + 0.5, y + 0.5, cell - 1, cell - 1, 0.18 + 0.82 * share,
    )  # fmt: skip
    if cell >= 2 * len(str(count)) * size * _GLYPH * 0.75:
        drawn += Markup('<text class="{}" x="{:g}" y="{:g}" text-anchor="middle">{}</text>').format(
            "strong" if share > 0.55 else "weak", x + cell / 2, y + cell / 2 + size * 0.35, count
        )
    return drawn + Markup("</g>")


def ticks(low: float, high: float) -> list[float]:
    """Return 3 to 7 round numbers at equal distances, the first at or below `low` and the last at or above `high`."""
    if not high > low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    raw = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]
