"""Whether int8 is as good is shown by exact intervals, and by images that are fair to all classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.training.artifact.changes import Changes, Limits, highest_share
from model.training.config import TrainingConfig
from model.training.loop.evaluation import fair_order

LIMITS = Limits(TrainingConfig.int8_max_accuracy_loss, TrainingConfig.int8_min_agreement)
TRAINING_IMAGES = 2000


@given(st.integers(1, 300).flatmap(lambda images: st.tuples(st.integers(0, images - 1), st.just(images))))
def test_the_highest_share_is_the_one_that_shows_so_few_in_a_fortieth_of_all_samples(seen):
    count, images = seen
    share = highest_share(count, images, 0.025)
    terms = (math.comb(images, k) * share**k * (1 - share) ** (images - k) for k in range(count + 1))
    assert math.fsum(terms) == pytest.approx(0.025, rel=1e-3)
    assert highest_share(images, images, 0.025) == 1


def admitted(valid_images: int, lost: float, won: float, other: float = 0.0) -> float:
    """Return how often the default limits admit a graph of these true shares of changed answers."""
    random = np.random.default_rng(valid_images)

    def draw(images: int) -> Changes:
        counts = random.multinomial(images, [lost, won, other, 1 - lost - won - other]).tolist()
        return Changes(images, sum(counts[:3]), *counts[:2])

    return float(np.mean([LIMITS.admit(draw(valid_images), draw(TRAINING_IMAGES)) for _ in range(400)]))


@pytest.mark.parametrize("valid_images", [67, 180, 835, 2000])
def test_a_graph_that_loses_nothing_ships_and_one_that_is_worse_than_the_limit_does_not(valid_images):
    assert admitted(valid_images, 0.002, 0.002, 0.001) > 0.93  # of the same accuracy, one answer in 200 changed
    assert admitted(valid_images, 0.0035, 0.0035, 0.003) > 0.85  # one in 100
    assert admitted(valid_images, 0.016, 0.003, 0.001) < 0.01  # truly 1.3 points worse
    assert admitted(valid_images, 0.013, 0.0) < 0.01  # so, too, and as near to fp32 as it can be then
    assert admitted(valid_images, 0.01, 0.0) <= 0.05  # at the limit of accuracy
    assert admitted(valid_images, 0.0, 0.0, 0.02) <= 0.05  # at the limit of agreement


def test_too_few_images_show_nothing_though_int8_changes_nothing():
    few = LIMITS.min_images - 1
    for images, shown in ((few, False), (few + 1, True)):
        assert LIMITS.admit(Changes(images), Changes()) == LIMITS.admit(Changes(50), Changes(images - 50)) == shown


def test_training_images_that_the_network_knows_by_heart_do_not_outvote_the_others():
    assert LIMITS.admit(Changes(835, 3, 1, 1), Changes(2000, 7, 3, 2))
    assert not LIMITS.admit(Changes(180, 4, 3, 0), Changes(2000, 0, 0, 0))


def test_changes_are_counted_by_what_they_do_to_the_answer():
    fp32, int8 = (np.eye(3, dtype=np.float32)[answers] for answers in ([0, 0, 1, 2, 1], [0, 1, 0, 2, 2]))
    assert Changes.between(fp32, int8, np.array([0, 0, 0, 0, 0])) == Changes(images=5, answers=3, lost=1, won=1)
    low, high = Changes(1000, 30, 20, 5).loss_interval
    assert low < 0.015 < high


@given(st.integers(1, 5000), st.data())
def test_every_first_part_of_the_fair_order_has_its_share_of_every_class_of_a_sorted_split(count, data):
    order = fair_order(count)
    assert sorted(order) == list(range(count))
    start, end = sorted(data.draw(st.tuples(st.integers(0, count), st.integers(0, count))))
    part = data.draw(st.integers(0, count))
    found = sum(start <= index < end for index in order[:part])
    assert abs(found - part * (end - start) / count) < 6
