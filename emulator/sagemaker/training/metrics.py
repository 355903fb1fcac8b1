"""The values that the log of a training job gives for its metrics, one series over all that interrupts the job.

Whoever looks at a series takes the third value for that of the third epoch. A program that begins anew goes on from its
newest checkpoint, so it does not print again what it had printed before that was written, and prints again what it had
printed since. `MetricSeries.rewind` leaves the series as if the program had been interrupted at that very moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from emulator.platform.store import Store, Table


class Point(NamedTuple):
    """One value of a metric, and when it was printed, in seconds since the epoch."""

    name: str
    value: float
    moment: float


class MetricSeries:
    """All values of one job's metrics, on record, for whoever adds to them."""

    def __init__(self, store: Store, job_arn: str) -> None:
        self._store = store
        self._job_arn = job_arn
        self._table = _table(store)
        self._batches = len(self._table.list(_prefix(job_arn)))

    def append(self, points: Sequence[Point]) -> None:
        """Add what was printed since the last time."""
        self._table.put(f"{_prefix(self._job_arn)}{self._batches:08d}", {"points": points})
        self._batches += 1

    def rewind(self, moment: float) -> None:
        """Forget what was printed after a moment."""
        with self._store.transaction():
            kept = [point for point in read_points(self._store, self._job_arn) if point.moment <= moment]
            self._table.delete_all(_prefix(self._job_arn))
            self._batches = 0
            if kept:
                self.append(kept)


def read_points(store: Store, job_arn: str) -> list[Point]:
    """Every value of a job's metrics, in the order of the log."""
    return [Point(*point) for batch in _table(store).list(_prefix(job_arn)) for point in batch["points"]]


def _table(store: Store) -> Table:
    return store.table("sagemaker", "training-metric")


def _prefix(job_arn: str) -> str:
    return f"{job_arn}/"
