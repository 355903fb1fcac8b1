"""Traffic over time: requests per second, for every second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cli.errors import UsageError

Series = npt.NDArray[np.float64]
_DAY = 86_400
#: Share of the peak at seconds of a pattern's period; between them it is a line.
_SPIKY = (0, 6600, 6630, 7200), (0.2, 0.2, 1, 1)


def make_traffic(pattern: str, peak: float, hours: float = 24) -> Series:
    """Return requests per second with the given peak.

    `pattern` is "steady", "daily" (a day's wave from 20% at night), "spiky" (ten minutes at the peak every two hours,
    20% between), or a CSV file with lines of seconds and rate, interpolated, repeated, and scaled to the peak.
    """
    seconds = np.arange(round(hours * 3600), dtype=float)
    if pattern == "steady":
        return np.full_like(seconds, peak)
    if pattern == "daily":
        return peak * (0.6 - 0.4 * np.cos(2 * np.pi * seconds / _DAY))
    times, rates = _SPIKY if pattern == "spiky" else _read_csv(Path(pattern))
    period = times[-1] + (pattern != "spiky")  # a file's last line is a second of its own
    return peak * np.interp(seconds % period, times, rates) / max(rates)


def _read_csv(file: Path) -> tuple[Series, Series]:
    try:
        lines = file.read_text().strip().splitlines()
        header = not lines[0][0].isdigit()  # it names the columns
        times, rates = np.array([line.split(",") for line in lines[header:]], dtype=float).T
        good = (np.diff(times) > 0).all() and times[0] >= 0 and (rates >= 0).all() and 0 < rates.max() < np.inf
    except (OSError, ValueError, IndexError):
        good = False
    if not good:
        raise UsageError(
            f"--pattern {file}: is neither steady, daily or spiky nor a CSV file of seconds and requests per second.",
            "Lines such as 0,10 and 3600,250, with ascending seconds.",
        )
    return times, rates
