"""The page of `kennel drift`: numbers and text, no image of a caller; it loads nothing and runs nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from cli.console import plain
from cli.drift.comparison import ALPHA, CLASSES, NUMBERS, Rows, column
from model.training.report.report import TEMPLATES


def write(file: Path, reference: Rows, now: Rows, **facts: Any) -> None:
    """Write the page; `now` are the images that are compared with those of the reference."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["plain"] = plain
    bars: dict[str, list[Any]] = {}
    for figure in NUMBERS:
        samples = [np.array(column(rows, figure)) for rows in (reference, now)]
        low, high = np.quantile(np.concatenate(samples), (0.002, 0.998))
        edges = np.linspace(low, max(high, low + 1e-9), 25)
        shares = [np.histogram(sample.clip(edges[0], edges[-1]), edges)[0] / len(sample) for sample in samples]
        bars[figure] = [*zip(edges.tolist(), *shares, strict=False)]
    counts = [Counter(column(rows, CLASSES)) for rows in (reference, now)]
    classes = [(name, counts[0][name] / len(reference), counts[1][name] / len(now)) for name in counts[0] | counts[1]]
    bars[CLASSES] = sorted(classes, key=lambda each: -abs(each[1] - each[2]))[:15]
    facts |= {"bars": bars, "referred": len(reference), "alpha": ALPHA}
    style = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(environment.get_template("page.html.jinja").render(facts, style=style), encoding="utf-8")
