"""Which precision a model ships with, and why: what `model.json` and `metrics.json` say about int8."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What int8 may cost on the validation images.

    Attributes
    ----------
    max_accuracy_loss : float
        Accuracy of fp32 less that of int8, both 0 to 1; 0.005 is half a point.
    min_agreement : float
        Share of images with the same most probable class in both, 0 to 1.
    """

    max_accuracy_loss: float
    min_agreement: float

    @property
    def min_images(self) -> int:
        """Fewer images than this cannot show a disagreement as small as the one that is allowed."""
        allowed = 1 - self.min_agreement
        return math.ceil(1 / allowed) if allowed > 0 else 1

    def admit(self, comparison: Comparison) -> bool:
        """Return whether int8 stays within the limits."""
        return (
            comparison.fp32_accuracy - comparison.int8_accuracy <= self.max_accuracy_loss + 1e-9
            and comparison.agreement >= self.min_agreement - 1e-9
        )


@dataclass(frozen=True)
class Comparison:
    """An int8 graph beside the fp32 graph it was made from.

    Attributes
    ----------
    images : int
        Of the validation split.
    agreement : float
        Share with the same most probable class, 0 to 1.
    fp32_accuracy, int8_accuracy : float
        0 to 1.
    fp32_loss, int8_loss : float
        Cross-entropy in nats.
    fp32_ms, int8_ms : float
        Processor time for one image on one thread, without decoding, in milliseconds; medians of alternating runs.
    calibration_images : int
        Of the training split.
    kept_fp32 : tuple of str
        The last layers, where they had to stay in fp32.
    """

    images: int
    agreement: float
    fp32_accuracy: float
    int8_accuracy: float
    fp32_loss: float
    int8_loss: float
    fp32_ms: float
    int8_ms: float
    calibration_images: int
    kept_fp32: tuple[str, ...]

    @property
    def speedup(self) -> float:
        """How many times as fast int8 is."""
        return self.fp32_ms / self.int8_ms

    def cost(self) -> str:
        """Return what int8 costs, in words."""
        return (
            f"accuracy {self.int8_accuracy:.2%} instead of {self.fp32_accuracy:.2%} and {self.agreement:.2%} agreement "
            f"on {self.images} validation images"
        )


@dataclass(frozen=True)
class Decision:
    """Which precision ships, and why.

    Attributes
    ----------
    precision : str
        "fp32" or "int8".
    reason : str
        For a person.
    limits : Limits
    comparison : Comparison or None
        Of the graph that ships or came nearest to it; None when none was made.
    machine : str
        Where the times were measured.
    seconds : float
        What finding out took.
    """

    precision: str
    reason: str
    limits: Limits
    comparison: Comparison | None
    machine: str
    seconds: float
