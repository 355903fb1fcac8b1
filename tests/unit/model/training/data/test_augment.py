from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from model.core.transforms import Preprocessing
from model.training.data import augment
from model.training.data.augment import Augmentation
from model.training.data.decoded import whole_image

PREPROCESSING = Preprocessing(64, 64)
STILL = Augmentation(
    PREPROCESSING, scale=(1, 1), ratio=1, rotation=0, brightness=0, contrast=0, saturation=0, temperature=0
)


def views(augmentation, image, count):
    pixels = torch.from_numpy(np.stack([whole_image(image, 96)] * count))
    aspects = torch.full((count,), image.width / image.height)
    normalised = augmentation(pixels, aspects, augmentation.draw(count, torch.Generator().manual_seed(0)))
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (PREPROCESSING.mean, PREPROCESSING.std))
    return ((normalised * std + mean) * 255).permute(0, 2, 3, 1).numpy()


def scene(width, height):
    image = Image.new("RGB", (width, height), (40, 90, 160))
    ImageDraw.Draw(image).circle((width / 2, height / 2), min(width, height) * 0.25, fill=(240, 240, 240))
    return image


def test_without_variation_a_view_is_what_the_server_sees_or_its_mirror_image():
    image = Image.fromarray(np.linspace(0, 255, 96 * 96 * 3).astype(np.uint8).reshape(96, 96, 3)).resize((300, 300))
    served = PREPROCESSING.crop(image).astype(float)
    kinds = set()
    for view in views(STILL, image, 16):
        straight, mirrored = np.abs(view - served).mean(), np.abs(view - served[:, ::-1]).mean()
        assert min(straight, mirrored) < 3
        kinds.add(bool(straight < mirrored))
    assert kinds == {True, False}


@pytest.mark.parametrize("size", [(300, 150), (150, 300)])
def test_a_disc_stays_round_whatever_the_images_shape(size):
    crops = Augmentation(PREPROCESSING, scale=(0.5, 0.7), ratio=1, rotation=45, temperature=0)
    found = 0
    for view in views(crops, scene(*size), 64):
        disc = view[..., 2] - view[..., 2].min() > 0.5 * np.ptp(view[..., 2])
        if disc[0].any() or disc[-1].any() or disc[:, 0].any() or disc[:, -1].any() or disc.sum() < 50:
            continue  # cut by the crop
        found += 1
        assert abs(disc.any(axis=0).sum() - disc.any(axis=1).sum()) <= 2
    assert found >= 5


@pytest.mark.parametrize("field", ["rotation", "brightness", "contrast", "saturation", "temperature"])
def test_each_variation_varies_within_the_range_of_colours(field):
    image = scene(200, 200)
    ImageDraw.Draw(image).rectangle((0, 0, 60, 200), fill=(200, 60, 30))
    changed = dataclasses.replace(STILL, **{field: 20.0 if field == "rotation" else 0.5})
    still, varied = views(STILL, image, 8), views(changed, image, 8)
    # The draws before the variation are the same, so the views differ by it alone.
    assert np.abs(still - varied).mean() > 1
    assert varied.min() >= -0.01 and varied.max() <= 255.01


@pytest.mark.parametrize("bytes_at_once", [1, 3 * 4 * 80 * 80 * 3, 10**9])
def test_a_part_of_a_batch_gets_the_views_that_it_has_in_the_whole(monkeypatch, bytes_at_once):
    augmentation, part = Augmentation(PREPROCESSING), slice(3, 7)
    pixels = torch.randint(0, 256, (8, 80, 80, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    aspects = torch.linspace(0.5, 2, 8)
    variations = augmentation.draw(8, torch.Generator().manual_seed(0))
    whole = augmentation(pixels, aspects, variations)
    monkeypatch.setattr(augment, "_BYTES_AT_ONCE", bytes_at_once)
    torch.testing.assert_close(augmentation(pixels[part], aspects[part], variations[part]), whole[part])
