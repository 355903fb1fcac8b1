"""Probabilities that mean something: of the images that a model is 80% sure of, 80% should be right.

One number mends most of what is wrong with a network's confidence, the temperature that its logits are divided by
before the softmax (Guo et al. 2017). It is fitted on the validation split; the test split says how good it is.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.predictor import softmax

BINS = 15
"""Of the expected calibration error, as in Guo et al."""

# Far beyond what a network that learned anything needs; published ones lie between 0.5 and 3.
MAX_TEMPERATURE = 10.0
# Images whose probabilities are in memory at a time, in float64: 80 MB with 10,000 classes.
_BATCH = 1024
# Of the interval from 1 to 10 (or 0.1): to a few millionths.
_HALVINGS = 20

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]


def fit_temperature(logits: FloatArray, targets: IntArray) -> float:
    """Return the temperature that makes the right classes likeliest.

    The cross-entropy is convex in the temperature's inverse, so halving an interval finds its one minimum. The mean
    confidence is not raised above (N + 1) / (N + 2), Laplace's rule of succession: N images that are all right would
    otherwise make the model absolutely sure of everything. The loss is never higher than with a temperature of 1.

    `logits` are [N, C] of validation images, N at least 1; `targets`, int64 [N], the right classes.
    """
    right = np.take_along_axis(logits, targets[:, np.newaxis], axis=1).mean(dtype=np.float64)
    most_confidence = (len(targets) + 1) / (len(targets) + 2)

    def slope_and_confidence(sharpness: float) -> tuple[float, float]:
        # The derivative of the loss by the inverse temperature; the mean confidence.
        expected = confidence = 0.0
        for start in range(0, len(logits), _BATCH):
            part = logits[start : start + _BATCH]
            probabilities = softmax(part, 1 / sharpness)
            expected += float((probabilities * part).sum())
            confidence += float(probabilities.max(axis=1).sum())
        return expected / len(logits) - float(right), confidence / len(logits)

    def may_grow(sharpness: float) -> bool:
        slope, confidence = slope_and_confidence(sharpness)
        return slope < 0 and not (sharpness > 1 and confidence > most_confidence)

    if math.isclose(slope_and_confidence(1.0)[0], 0.0, abs_tol=1e-12):
        return 1.0  # already best; or the logits say nothing, as no temperature can
    low, high = (1.0, MAX_TEMPERATURE) if may_grow(1.0) else (1 / MAX_TEMPERATURE, 1.0)
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if may_grow(middle) else (low, middle)
    return 1 / low


def reliability(probabilities: FloatArray, targets: IntArray) -> dict[str, Any]:
    """Compare a model's confidence with how often it is right, for probabilities [N, C] and right classes [N].

    Returns what `metrics.json` has: the calibration error, the loss, and the bins (0, 1/15], … (14/15, 1].
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    # Closed on the right; a confidence that rounding has put above 1 belongs to the last.
    index = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins: list[dict[str, Any]] = []
    error = 0.0
    for chosen in (index == number for number in range(BINS)):
        count = int(chosen.sum())
        sure, accurate = (float(values[chosen].mean()) if count else None for values in (confidence, right))
        bins.append({"images": count, "confidence": sure, "accuracy": accurate})
        if sure is not None and accurate is not None:
            error += count * abs(sure - accurate)
    loss = float(losses(probabilities, targets).mean())
    return {"expected_calibration_error": error / len(targets), "loss": loss, "bins": bins}


def at_temperature(probabilities: FloatArray, temperature: float) -> npt.NDArray[np.float64]:
    """Return what probabilities [N, C] become when their logits are divided by `temperature`; its inverse undoes it."""
    powers: npt.NDArray[np.float64] = probabilities.astype(np.float64) ** (1 / temperature)
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def losses(probabilities: FloatArray, targets: IntArray) -> npt.NDArray[np.float64]:
    """Return each image's cross-entropy in nats, float64 [N], for probabilities [N, C] and right classes [N]."""
    chosen = np.take_along_axis(probabilities, targets[:, np.newaxis], axis=1)[:, 0].astype(np.float64)
    # A probability that underflows to 0 would make the loss infinite, which JSON cannot hold.
    return -np.log(np.maximum(chosen, sys.float_info.min))
