"""Traffic over time: requests per second, for every second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cli.errors import UsageError

Series = npt.NDArray[np.float64]
_DAY = 86_400
_AT_NIGHT = 0.2  # of the peak
_SPIKE_EVERY, _SPIKE_SECONDS, _SPIKE_RISE = 7200, 600, 30


def make_traffic(pattern: str, peak: float, hours: float) -> Series:
    """Return requests per second with the given peak.

    Parameters
    ----------
    pattern : str
        "steady", "daily" (a day's wave from 20% at night), "spiky" (ten minutes at the peak every two hours, 20%
        between), or a CSV file with lines of seconds and rate, interpolated, repeated, and scaled to the peak.
    peak : float
    hours : float
    """
    seconds = np.arange(round(hours * 3600), dtype=float)
    if pattern == "steady":
        shape = np.ones_like(seconds)
    elif pattern == "daily":
        shape = _AT_NIGHT + (1 - _AT_NIGHT) * (1 - np.cos(2 * np.pi * seconds / _DAY)) / 2
    elif pattern == "spiky":
        within = seconds % _SPIKE_EVERY
        edges = (0, _SPIKE_EVERY - _SPIKE_SECONDS, _SPIKE_EVERY - _SPIKE_SECONDS + _SPIKE_RISE, _SPIKE_EVERY)
        shape = np.interp(within, edges, (_AT_NIGHT, _AT_NIGHT, 1, 1))
    else:
        times, rates = _read_csv(Path(pattern))
        shape = np.interp(seconds % (times[-1] + 1), times, rates) / rates.max()
    return peak * shape


def _read_csv(file: Path) -> tuple[Series, Series]:
    try:
        times, rates = np.genfromtxt(file, delimiter=",", skip_header=_has_header(file), unpack=True, ndmin=2)
        good = (np.diff(times) > 0).all() and times[0] >= 0 and (rates >= 0).all() and rates.max() > 0
    except (OSError, ValueError, UnicodeDecodeError):
        good = False
    if not good:
        raise UsageError(
            f"--pattern {file}: is neither steady, daily or spiky nor a CSV file of seconds and requests per second.",
            "Lines such as 0,10 and 3600,250, with ascending seconds.",
        )
    return times, rates


def _has_header(file: Path) -> bool:
    return not file.read_text().lstrip()[:1].isdigit()
