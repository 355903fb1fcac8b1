"""The breeds table, and what a classifier may and may not get out of the images."""

from __future__ import annotations

import io
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sample_data.breeds import BREEDS, Breed, Pattern
from sample_data.coats import COVERAGE
from sample_data.image import draw_image

LEARNED_FROM, JUDGED_BY = 24, 12


def thumbnail(breed: Breed, *seed: int) -> np.ndarray:
    with Image.open(io.BytesIO(draw_image(breed, np.random.default_rng(seed), (64, 96)))) as image:
        return np.asarray(image.resize((32, 32), Image.Resampling.BOX))


@pytest.fixture(scope="module")
def thumbnails() -> np.ndarray:
    """[12 breeds, images, 32, 32, 3]"""
    return np.stack(
        [[thumbnail(breed, 3, i, k) for k in range(LEARNED_FROM + JUDGED_BY)] for i, breed in enumerate(BREEDS[:12])]
    )


def linear_accuracy(features: np.ndarray) -> float:
    """Test accuracy of logistic regression on features [classes, images, values]."""
    labels = np.arange(len(features))[:, None]
    seen, unseen = features[:, :LEARNED_FROM], features[:, LEARNED_FROM:]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    model.fit(np.concatenate(seen), np.broadcast_to(labels, seen.shape[:2]).ravel())
    return float(model.score(np.concatenate(unseen), np.broadcast_to(labels, unseen.shape[:2]).ravel()))


def test_colour_alone_does_not_tell_the_breeds_apart_but_shape_does(thumbnails: np.ndarray) -> None:
    red, green, blue = np.moveaxis(thumbnails // 64, -1, 0)
    histogram = np.stack([np.mean(red * 16 + green * 4 + blue == code, axis=(2, 3)) for code in range(64)], axis=-1)
    for colour in (thumbnails.mean(axis=(2, 3)), thumbnails[:, :, 10:22, 8:24].mean(axis=(2, 3)), histogram):
        assert linear_accuracy(colour) < 0.45
    coarse = thumbnails.reshape(*thumbnails.shape[:2], 8, 4, 8, 4, 3).mean(axis=(3, 5))
    assert linear_accuracy(coarse.reshape(*thumbnails.shape[:2], -1)) > 0.22  # chance is 8%


def test_the_first_breeds_differ_in_their_traits_and_share_their_colours() -> None:
    some = BREEDS[:12]
    assert len({breed.name for breed in BREEDS}) == len(BREEDS) == 16
    assert {breed.ears.kind for breed in some} >= {"pricked", "dropped", "button", "bat"}
    assert {breed.tail.kind for breed in some} >= {"curled", "plume", "docked", "sickle"}
    assert len({breed.coat.kind for breed in some}) == 5
    black = [breed for breed in BREEDS if any(sum(way.base) < 180 for way in breed.colourways)]
    gold = [breed for breed in BREEDS if any(way.base[0] - way.base[2] > 60 for way in breed.colourways)]
    assert len(black) >= 4 and len(gold) >= 4


def test_every_pattern_is_drawn_and_used() -> None:
    used = {marking.pattern for breed in BREEDS for way in breed.colourways for marking in way.markings}
    assert set(COVERAGE) == used == set(get_args(Pattern))


@pytest.mark.parametrize("breed", BREEDS, ids=lambda breed: breed.name)
@pytest.mark.parametrize("size", [(48, 48), (300, 320)])
def test_every_breed_can_be_drawn_in_any_pose(breed: Breed, size: tuple[int, int]) -> None:
    for seed in range(5):
        with Image.open(io.BytesIO(draw_image(breed, np.random.default_rng(seed), size))) as image:
            pixels = np.asarray(image).astype(float)
            assert (image.format, image.mode) == ("JPEG", "RGB")
        assert size[0] <= max(image.size) <= size[1]
        assert pixels.std() > 12, "an image with nothing on it"
