"""The metrics of CloudWatch: values gathered for a moment, then kept in MiniStack's store, and their statistics."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ministack.core.responses import get_region
from ministack.services import cloudwatch

from emulator.platform.clock import Clock

#: AWS's periods begin at whole minutes, those of high resolution (below a minute) at every tenth second.
MINUTE, HIGH_RESOLUTION = 60.0, 10.0
#: Region, namespace, name and dimensions: no dimensions are a set of their own.
Metric = tuple[str, str, str, Mapping[str, str]]
#: As long as AWS keeps the points of a minute.
_KEPT_SECONDS = 15 * 24 * 3600.0
_STATISTICS = re.compile(r"Sum|Average|Minimum|Maximum|SampleCount|p(\d{1,2}(\.\d+)?|100)")


def known(statistic: str) -> bool:
    """Tell whether this is a statistic that `Metrics.values` finds."""
    return _STATISTICS.fullmatch(statistic) is not None


def step(period: float) -> float:
    """Return at what times periods of a length may begin, in seconds of AWS."""
    return MINUTE if period >= MINUTE else min(period, HIGH_RESOLUTION)


class Metrics:
    def __init__(self, account: str, clock: Clock) -> None:
        self._account = account
        self.clock = clock
        #: How long values are gathered before they are a point, a second at most: fits into AWS's ten seconds.
        self.resolution = clock.seconds(HIGH_RESOLUTION) / math.ceil(clock.seconds(HIGH_RESOLUTION))
        self._lock = threading.Lock()
        self._gathered: dict[tuple[Any, ...], dict[float, float]] = {}

    def install(self) -> None:
        """Let MiniStack's own metrics be gathered, too, and its store bear that many threads write to it."""

        def record(namespace: str, name: str, value: float, unit: str = "None", dimensions: Any = None) -> None:
            self.record(get_region(), namespace, name, dimensions or {}, value, unit)

        cloudwatch.record_metric = record
        cloudwatch._evict_old_metrics = lambda: None  # which rewrites every list at every request
        cloudwatch._metric_bucket = lambda key: cloudwatch._metrics.setdefault(key, [])

    def evict(self) -> None:
        """Let go of points that AWS would not keep; for the start, when nobody writes."""
        oldest, kept = time.time() - _KEPT_SECONDS, cloudwatch._metrics._data
        for key, points in list(kept.items()):
            kept[key] = [point for point in points if point["Timestamp"] >= oldest]
            if not kept[key]:
                del kept[key]

    def record(
        self,
        region: str,
        namespace: str,
        name: str,
        dimensions: Mapping[str, str],
        value: float,
        unit: str = "None",
        count: float = 1.0,
        digits: int = 3,
    ) -> None:
        """See `Monitoring.record`."""
        key = (region, namespace, name, unit, self._tick(time.time()), *dimensions.items())
        value = float(f"{value:.{digits}g}")
        with self._lock:
            counts = self._gathered.setdefault(key, {})
            counts[value] = counts.get(value, 0.0) + count

    def flush(self) -> bool:
        """Store what was gathered; whether there was anything."""
        with self._lock:
            gathered, self._gathered = self._gathered, {}
            for (region, namespace, name, unit, tick, *items), counts in gathered.items():
                dimensions = dict(items)
                place = (self._account, region, (namespace, name, cloudwatch._dims_key(dimensions)))
                point = {"Timestamp": tick * self.resolution, "Unit": unit, "Dimensions": dimensions}
                values = {"Values": [*counts], "Counts": [*counts.values()]}
                cloudwatch._metrics._data.setdefault(place, []).append(point | values)
        return bool(gathered)

    def values(
        self, metric: Metric, statistic: str, period: float, start: float, end: float, unit: str | None = None
    ) -> dict[float, float]:
        """Return a statistic of a metric by the start of each period that has data, oldest first.

        `statistic` is Sum, Average, Minimum, Maximum, SampleCount or a percentile such as p95, `period` is in seconds
        of AWS, and `start` and `end` are time stamps. Periods begin at `start`, rounded down to AWS's minute, or to
        ten seconds of AWS when they are shorter than a minute. With `unit`, only points that have it count.
        """
        self.flush()
        begins = max(1, self._tick(self.clock.seconds(step(period))))
        length = max(1, self._tick(self.clock.seconds(period)))
        first, last = self._tick(start) // begins * begins, self._tick(end)
        region, namespace, name, dimensions = metric
        place = (self._account, region, (namespace, name, cloudwatch._dims_key(dimensions)))
        periods: dict[int, list[Any]] = {}
        since, until = (first - 1) * self.resolution, (last + 1) * self.resolution
        # Quickly, for there may be many points, and few are near.
        near = [p for p in list(cloudwatch._metrics._data.get(place, ())) if since <= p["Timestamp"] < until]
        for point in near:
            tick = self._tick(point["Timestamp"])
            if first <= tick < last and unit in (None, point["Unit"]):
                periods.setdefault((tick - first) // length, []).append(point)
        found = {}
        for number in sorted(periods):
            points = _single(periods[number])
            value = cloudwatch._stat_value(cloudwatch._calc_stats(points), statistic, points)
            if value is not None:
                found[(first + number * length) * self.resolution] = value
        return found

    def _tick(self, seconds: float) -> int:
        """Count in what points are apart, in whole numbers: real time stamps lie a trifle off a period's limits."""
        return math.floor(seconds / self.resolution + 1e-6)


def _single(points: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Write points of many values as points of one, as MiniStack knows them, with each value once."""
    counts: dict[float, float] = {}
    others = []
    for point in points:
        if "_stat" in point:
            others.append(point)
            continue
        values, times = point.get("Values") or [point["Value"]], point.get("Counts") or [point.get("Count", 1.0)]
        for value, count in zip(values, times, strict=True):
            counts[value] = counts.get(value, 0.0) + count
    return [*others, *({"Value": value, "Count": count} for value, count in counts.items())]
