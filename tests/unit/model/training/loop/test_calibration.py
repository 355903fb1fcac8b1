"""The temperature and the calibration error, against cases that were worked out by hand or made to order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.core.predictor import softmax
from model.training.loop.calibration import MAX_TEMPERATURE, fit_temperature, losses, reliability


def sampled(count: int, classes: int, *, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and classes drawn with the probabilities that they stand for: a perfectly calibrated model."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=spread, size=(count, classes))
    cumulated = softmax(logits).cumsum(axis=1)
    targets = (random.random((count, 1)) > cumulated).sum(axis=1)
    return logits, np.minimum(targets, classes - 1)


@pytest.mark.parametrize(("temperature", "classes"), [(0.4, 2), (1.0, 12), (4.0, 133)])
def test_a_known_temperature_is_found(temperature, classes):
    logits, targets = sampled(5_000, classes, spread=2.0)
    assert fit_temperature(logits * temperature, targets) == pytest.approx(temperature, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.floats(0.01, 60), st.integers(0, 2**32))
def test_the_loss_is_never_higher_than_without_and_the_temperature_is_bounded(count, classes, spread, seed):
    random = np.random.default_rng(seed)
    logits = random.normal(scale=spread, size=(count, classes)).astype(np.float32)
    targets = random.integers(0, classes, count)
    temperature = fit_temperature(logits, targets)
    assert temperature * (1 + 1e-9) >= 1 / MAX_TEMPERATURE
    assert temperature <= MAX_TEMPERATURE * (1 + 1e-9)
    before, after = (losses(softmax(logits, value), targets).mean() for value in (1.0, temperature))
    assert after <= before + 1e-9


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_a_model_that_made_no_mistake_is_not_made_absolutely_sure(count):
    logits = np.tile([[2.0, 0.0, 0.0]], (count, 1))
    confidence = softmax(logits, fit_temperature(logits, np.zeros(count, dtype=np.int64))).max()
    assert confidence == pytest.approx(max((count + 1) / (count + 2), softmax(logits).max()), rel=1e-4)


def test_the_calibration_error_of_a_case_worked_out_by_hand():
    # Confidences 0.9, 0.9, 0.6, 0.6: bins 14 and 9 of 15. Right: both, and one of two.
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.4, 0.6]])
    found = reliability(probabilities, np.array([0, 1, 0, 0]))
    # (2 x |0.9 - 1| + 2 x |0.6 - 0.5|) / 4
    assert found["expected_calibration_error"] == pytest.approx(0.1)
    assert [one["images"] for one in found["bins"]] == [0] * 8 + [2] + [0] * 4 + [2] + [0]
    assert found["bins"][13] == {"images": 2, "confidence": pytest.approx(0.9), "accuracy": 1.0}
    assert found["bins"][0] == {"images": 0, "confidence": None, "accuracy": None}
    assert found["loss"] == pytest.approx(-(2 * math.log(0.9) + math.log(0.6) + math.log(0.4)) / 4)
