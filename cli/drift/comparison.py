"""Statistical tests of two samples of images, figure by figure.

Drift is large and not by chance: of 100,000 images everything is significant. The population stability index (PSI) of
classes and shares is large from 0.25 on (Siddiqi, Credit Risk Scorecards, 2006). Between two normal distributions that
is half a standard deviation, Cohen's medium effect (1988), where D of Kolmogorov and Smirnov is 0.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from scipy import stats

from infra.tables.alarms import Figure

#: How often at most a run sees drift of any figure where there is none (Holm 1979).
ALPHA = 0.01
D_LIMIT, PSI_LIMIT = 0.2, 0.25
FIGURES = get_args(Figure)
NUMBERS, SHARES, CLASSES = FIGURES[:6], FIGURES[6:8], FIGURES[8]

Rows = Sequence[dict[str, Any]]  # images' figures


def column(rows: Rows, figure: str) -> list[Any]:
    """Return a figure of the images that have it."""
    return [row[figure] for row in rows if figure in row]


def middle(figure: str, values: Sequence[float]) -> float | None:
    """Return the median of a number, the mean of a share."""
    return None if figure == CLASSES else float((np.mean if figure in SHARES else np.median)(values))


def by_period(rows: Rows, form: str) -> list[dict[str, Any]]:
    """Sum up each time (UTC) that is the same in a form: its number of images, and the middle of each figure."""
    periods: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["time"]):
        periods.setdefault(f"{row['time']:{form}}", []).append(row)
    return [
        {"from": name, "images": len(found)}
        | {figure: middle(figure, values) for figure in FIGURES[:8] if (values := column(found, figure))}
        for name, found in periods.items()
    ]


def compare(reference: Rows, now: Rows) -> list[dict[str, Any]]:
    """Compare the figures that both samples have, the most significant first: middles, effect, its limit, p, drift."""
    found: list[dict[str, Any]] = []
    for figure in FIGURES:
        if all(samples := [column(rows, figure) for rows in (reference, now)]):
            limit = D_LIMIT if figure in NUMBERS else PSI_LIMIT
            effect, p = stats.ks_2samp(*samples, method="asymp") if figure in NUMBERS else _compare_classes(*samples)
            before, after = (middle(figure, sample) for sample in samples)
            found.append(
                {"figure": figure, "reference": before, "now": after, "effect": float(effect), "limit": limit, "p": p}
            )
    found.sort(key=lambda each: (each["p"], -each["effect"]))
    for rank, each in enumerate(found):  # Holm's correction
        least = found[rank - 1]["p"] if rank else 0.0
        each["p"] = max(least, min(1.0, (len(found) - rank) * float(each["p"])))
        each["drifted"] = each["effect"] >= each["limit"] and each["p"] < ALPHA
    return found


def _compare_classes(*samples: Sequence[Any]) -> tuple[float, float]:
    """Return PSI and p of the chi-square test; its distribution is simulated, for some classes are rare.

    From PSI is taken what chance makes of it, (K - 1) (1/N + 1/M) for N and M images of K classes (Yurdakul and Naranjo
    2020). Half an image more in each class keeps the logarithms finite.
    """
    first, second = (Counter(sample) for sample in samples)
    counts = np.array([[each[one] for one in {**first, **second}] for each in (first, second)])
    images, classes = counts.sum(axis=1, keepdims=True), counts.shape[1]
    before, now = (counts + 0.5) / (images + 0.5 * classes)
    psi = ((now - before) * np.log(now / before)).sum() - (classes - 1) * (1 / images).sum()
    simulated = stats.MonteCarloMethod(rng=np.random.default_rng(0))
    p = stats.chi2_contingency(counts, correction=False, method=simulated).pvalue if classes > 1 else 1.0
    return max(0.0, psi), p
