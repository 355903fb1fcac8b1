"""What a classifier may and may not get out of the drawn images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sample_data.breeds import BREEDS, Breed
from sample_data.image import draw_image

LEARNED_FROM, JUDGED_BY = 24, 12


def thumbnail(breed: Breed, *seed: int) -> np.ndarray:
    with Image.open(io.BytesIO(draw_image(breed, np.random.default_rng(seed), (64, 96)))) as image:
        return np.asarray(image.resize((32, 32), Image.Resampling.BOX))


def linear_accuracy(features: np.ndarray) -> float:
    """Test accuracy of logistic regression on features [classes, images, values]."""
    labels = np.arange(len(features))[:, None]
    seen, unseen = features[:, :LEARNED_FROM], features[:, LEARNED_FROM:]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    model.fit(np.concatenate(seen), np.broadcast_to(labels, seen.shape[:2]).ravel())
    return float(model.score(np.concatenate(unseen), np.broadcast_to(labels, unseen.shape[:2]).ravel()))


def test_colour_alone_does_not_tell_the_breeds_apart_but_shape_does() -> None:
    thumbnails = np.stack(  # [12 breeds, images, 32, 32, 3]
        [[thumbnail(breed, 3, i, k) for k in range(LEARNED_FROM + JUDGED_BY)] for i, breed in enumerate(BREEDS[:12])]
    )
    red, green, blue = np.moveaxis(thumbnails // 64, -1, 0)
    histogram = np.stack([np.mean(red * 16 + green * 4 + blue == code, axis=(2, 3)) for code in range(64)], axis=-1)
    for colour in (thumbnails.mean(axis=(2, 3)), thumbnails[:, :, 10:22, 8:24].mean(axis=(2, 3)), histogram):
        assert linear_accuracy(colour) < 0.45
    coarse = thumbnails.reshape(*thumbnails.shape[:2], 8, 4, 8, 4, 3).mean(axis=(3, 5))
    assert linear_accuracy(coarse.reshape(*thumbnails.shape[:2], -1)) > 0.22  # chance is 8%


@pytest.mark.parametrize("breed", BREEDS, ids=lambda breed: breed.name)
def test_every_breed_can_be_drawn_in_any_pose_and_size(breed: Breed) -> None:
    for seed, size in enumerate([(48, 48), (300, 320)] * 3):
        with Image.open(io.BytesIO(draw_image(breed, np.random.default_rng(seed), size))) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert size[0] <= max(image.size) <= size[1]
            assert np.asarray(image).astype(float).std() > 12, "an image with nothing on it"
