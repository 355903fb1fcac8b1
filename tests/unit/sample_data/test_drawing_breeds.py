"""The breeds table, and what a classifier may and may not get out of the pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sample_data.breeds import BREEDS, Breed, EarKind, Pattern, TailKind
from sample_data.coats import COVERAGE
from sample_data.dataset import folder_name
from sample_data.picture import draw_picture

LEARNED_FROM, JUDGED_BY = 24, 12


def thumbnail(breed: Breed, *seed: int) -> np.ndarray:
    data = draw_picture(breed, np.random.default_rng(seed), (64, 96))
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.resize((32, 32), Image.Resampling.BOX))


@pytest.fixture(scope="module")
def thumbnails() -> np.ndarray:
    """[12 breeds, pictures, 32, 32, 3]"""
    return np.stack(
        [[thumbnail(breed, 3, i, k) for k in range(LEARNED_FROM + JUDGED_BY)] for i, breed in enumerate(BREEDS[:12])]
    )


def linear_accuracy(features: np.ndarray) -> float:
    """Test accuracy of logistic regression on features [classes, pictures, values]."""
    labels = np.arange(len(features))[:, None]
    seen, unseen = features[:, :LEARNED_FROM], features[:, LEARNED_FROM:]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    model.fit(np.concatenate(seen), np.broadcast_to(labels, seen.shape[:2]).ravel())
    return float(model.score(np.concatenate(unseen), np.broadcast_to(labels, unseen.shape[:2]).ravel()))


def mean_colour(thumbnails: np.ndarray) -> np.ndarray:
    return thumbnails.mean(axis=(2, 3))


def mean_colour_of_the_middle(thumbnails: np.ndarray) -> np.ndarray:
    return thumbnails[:, :, 10:22, 8:24].mean(axis=(2, 3))


def colour_histogram(thumbnails: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(thumbnails // 64, -1, 0)
    return np.stack([np.mean(red * 16 + green * 4 + blue == code, axis=(2, 3)) for code in range(64)], axis=-1)


@pytest.mark.parametrize("features", [mean_colour, mean_colour_of_the_middle, colour_histogram])
def test_colour_alone_does_not_tell_the_breeds_apart(thumbnails: np.ndarray, features) -> None:
    assert linear_accuracy(features(thumbnails)) < 0.45


def test_there_is_something_to_learn(thumbnails: np.ndarray) -> None:
    """The same linear model finds far more than chance (8%) in 8 x 8 pixels: the pictures are not noise."""
    coarse = thumbnails.reshape(*thumbnails.shape[:2], 8, 4, 8, 4, 3).mean(axis=(3, 5))
    assert linear_accuracy(coarse.reshape(*thumbnails.shape[:2], -1)) > 0.22


def test_names_are_distinct_and_fit_for_folders() -> None:
    names = [breed.name for breed in BREEDS]
    assert len(set(names)) == len(names) >= 12
    assert all(name.replace("_", "").isalpha() and name[0].isupper() for name in names)
    assert [folder_name(breed) for breed in BREEDS] == sorted(folder_name(breed) for breed in BREEDS)


def test_any_twelve_first_breeds_cover_the_traits_that_differ() -> None:
    some = BREEDS[:12]
    assert {breed.ears.kind for breed in some} >= {EarKind.PRICKED, EarKind.DROPPED, EarKind.BUTTON, EarKind.BAT}
    assert {breed.tail.kind for breed in some} >= {TailKind.CURLED, TailKind.PLUME, TailKind.DOCKED, TailKind.SICKLE}
    assert len({breed.coat.kind for breed in some}) == 5


def test_several_breeds_share_each_of_the_common_colours() -> None:
    def brightness(colour: tuple[int, int, int]) -> float:
        return sum(colour) / 3

    black = [breed for breed in BREEDS if any(brightness(way.base) < 60 for way in breed.colourways)]
    gold = [breed for breed in BREEDS if any(way.base[0] - way.base[2] > 60 for way in breed.colourways)]
    assert len(black) >= 4
    assert len(gold) >= 4


def test_every_pattern_is_drawn_and_used() -> None:
    assert set(COVERAGE) == set(Pattern)
    used = {marking.pattern for breed in BREEDS for way in breed.colourways for marking in way.markings}
    assert used == set(Pattern)


@pytest.mark.parametrize("breed", BREEDS, ids=lambda breed: breed.name)
@pytest.mark.parametrize("size", [(48, 48), (300, 320)])
def test_every_breed_can_be_drawn_in_any_pose(breed: Breed, size: tuple[int, int]) -> None:
    for seed in range(5):
        with Image.open(io.BytesIO(draw_picture(breed, np.random.default_rng(seed), size))) as picture:
            pixels = np.asarray(picture).astype(float)
        assert max(picture.size) in range(size[0], size[1] + 1)
        assert pixels.std() > 12, "a picture with nothing on it"
