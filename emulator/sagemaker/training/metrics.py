"""The values that the log of a training job gives for its metrics, one series over all that interrupts the job.

A tuning job takes the third value of a series for that of the third epoch. A program that begins anew goes on from its
newest checkpoint: it prints again what it had printed since that was written, and nothing from before. After
`JobMetrics.rewind` the series is as if the program had been interrupted at that very moment.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from emulator.evaluation import evaluator
from emulator.platform.awsapi import Caller, Payload
from emulator.platform.monitoring import Monitoring
from emulator.platform.store import Record, Store
from emulator.sagemaker.resources import Resources

_TABLE = ("sagemaker", "training-metric")
_NAMESPACE = "/aws/sagemaker/TrainingJobs"
#: A call of the evaluator takes 100 microseconds (on a busy machine 750), a line in it 2.
_LINES_TOGETHER = 1000


class Point(NamedTuple):
    """One value of a metric, and when it was printed, in seconds since the epoch."""

    name: str
    value: float
    moment: float


def read_points(store: Store, job_arn: str) -> list[Point]:
    batches = store.table(*_TABLE).list(f"{job_arn}/")
    return [Point(*point) for batch in batches for point in batch["points"]]


class JobMetrics:
    """Finds the values in the lines of a log and puts them on record: the last in the job's, all in the series."""

    def __init__(self, job: Payload, jobs: Resources, store: Store, monitoring: Monitoring) -> None:
        self._arn = job["TrainingJobArn"]
        self._jobs = jobs
        self._store = store
        self._publish = functools.partial(monitoring.record, Caller.of_arn(self._arn).region, _NAMESPACE, digits=12)
        self._dimensions = {"TrainingJobName": job["TrainingJobName"]}
        definitions = job["AlgorithmSpecification"].get("MetricDefinitions", [])
        self._metrics = [(definition["Name"], definition["Regex"]) for definition in definitions]
        self._lines: list[tuple[str, float]] = []
        self._points: list[Point] = []
        self._lock = threading.Lock()

    def take(self, line: str) -> None:
        with self._lock:
            self._lines.append((line, time.time()))
            if len(self._lines) == _LINES_TOGETHER:
                self._match()

    def _match(self) -> None:
        lines, self._lines = self._lines, []
        for name, expression in [*self._metrics] if lines else []:
            for number, found in self._search(name, expression, [line for line, _ in lines]):
                with contextlib.suppress(ValueError):  # the group may have no part in the match
                    if math.isfinite(value := float(found)):
                        self._points.append(Point(name, value, lines[number][1]))
                        self._publish(name, self._dimensions, value)

    def _search(self, name: str, expression: str, lines: list[str]) -> Iterator[tuple[int, str]]:
        """Search lines, and leave the metric out from the line on that takes too long or too much."""
        try:
            yield from evaluator.call(evaluator.search, (expression, lines))
        except (TimeoutError, ValueError):
            if len(lines) == 1:
                self._metrics.remove((name, expression))
            for number, line in enumerate(lines):
                if (name, expression) in self._metrics:
                    yield from ((number, found) for _, found in self._search(name, expression, [line]))

    def flush(self) -> None:
        """Put the values so far on record; those that cannot be written are kept for the next time."""
        with self._lock:
            self._match()
            if self._points:
                with self._store.transaction():
                    self._jobs.change(self._arn, lambda record: _set_final_metrics(self._points, record))
                    self._append(self._points)
                self._points = []

    def rewind(self, moment: float) -> None:
        with self._store.transaction():
            kept = [point for point in read_points(self._store, self._arn) if point.moment <= moment]
            self._store.table(*_TABLE).delete_all(f"{self._arn}/")
            if kept:
                self._append(kept)

    def _append(self, points: Sequence[Point]) -> None:
        self._store.table(*_TABLE).put(f"{self._arn}/{time.time_ns()}", {"points": points})


def _set_final_metrics(points: list[Point], record: Record) -> None:
    latest = {item["MetricName"]: item for item in record.get("FinalMetricDataList", [])}
    for name, value, moment in points:
        latest[name] = {"MetricName": name, "Value": value, "Timestamp": moment}
    record["FinalMetricDataList"] = list(latest.values())
