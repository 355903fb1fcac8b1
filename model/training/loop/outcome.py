"""What a training has reached, and the error of one that reaches nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .metrics import EpochMetrics, Evaluation


class DivergedError(Exception):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Fit:
    """What a training has reached.

    Attributes
    ----------
    history : list of EpochMetrics
        One per epoch that was finished.
    best_epoch : int
        The one with the lowest validation loss, whose weights are kept; 0 when no epoch was finished.
    best : Evaluation or None
        Its validation.
    interrupted : bool
        Whether `should_stop` ended the training.
    workers : int
        How many processes trained.
    efficiency : float or None
        The speed of all workers over their number times the speed of one that trains alone on batches of the same
        share; None for one worker, and where it is not measured: with `compile`, and with SyncBatchNorm.
    """

    history: list[EpochMetrics]
    best_epoch: int
    best: Evaluation | None
    interrupted: bool
    workers: int = 1
    efficiency: float | None = None

    @property
    def images_per_second(self) -> float:
        """Training images per second on all workers, over all epochs: the harmonic mean of the epochs' figures."""
        return len(self.history) / sum(1 / epoch.images_per_second for epoch in self.history)


KeepBest = Callable[[Fit, Callable[[], Mapping[str, Any]]], None]
"""Called with the outcome so far and with what returns the weights of the best epoch."""
