from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from model.core.network import torchvision_models
from model.core.transforms import Preprocessing
from model.training.config import AUGMENT, Recipe
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


@pytest.mark.parametrize("policy", ["standard", "trivial"])
@pytest.mark.parametrize("bytes_at_once", [1, 3 * 4 * 80 * 80 * 3, 10**9])
def test_a_part_of_a_batch_gets_the_views_that_it_has_in_the_whole(monkeypatch, bytes_at_once, policy):
    augmentation, part = Augmentation(PREPROCESSING, policy), slice(3, 7)
    pixels = torch.randint(0, 256, (8, 80, 80, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    aspects = torch.linspace(0.5, 2, 8)
    variations = augmentation.draw(8, torch.Generator().manual_seed(0))
    whole = augmentation(pixels, aspects, variations)
    monkeypatch.setattr(augment, "_BYTES_AT_ONCE", bytes_at_once)
    torch.testing.assert_close(augmentation(pixels[part], aspects[part], variations[part]), whole[part])


def test_trivialaugmentwide_is_torchvisions():
    torchvision_models()  # makes torchvision importable
    from torchvision.transforms.v2 import InterpolationMode, TrivialAugmentWide

    count, reference = 300, TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    random = np.random.default_rng(0).integers(0, 255, (6, 6, 3), np.uint8)
    image = Image.fromarray(random).resize((96, 96), Image.Resampling.BICUBIC)
    still, trivial = (dataclasses.replace(STILL, mirror=False, policy=policy) for policy in ("standard", "trivial"))
    plain = torch.from_numpy(views(still, image, 1)[0]).permute(2, 0, 1).round().to(torch.uint8)
    generator = torch.Generator().manual_seed(0)
    still.draw(count, generator)  # what is drawn before the operations
    drawn = [torch.randint(most, (count,), generator=generator).tolist() for most in (14, 31, 2)]
    space = reference._AUGMENTATION_SPACE
    for view, operation, strength, positive in zip(views(trivial, image, count), *drawn, strict=True):
        name = list(space)[operation]
        magnitudes, is_signed = space[name]
        strengths = magnitudes(31, 64, 64)
        magnitude = 0.0 if strengths is None else float(strengths[strength]) * (-1 if is_signed and not positive else 1)
        apply = reference._apply_image_or_video_transform
        options = {"interpolation": InterpolationMode.BILINEAR, "fill": {}}
        expected = apply(plain, name, magnitude, **options).permute(1, 2, 0).numpy().astype(float)
        if name.startswith(("Shear", "Translate", "Rotate")):  # torchvision shows black where the image ends
            inside = apply(torch.full_like(plain, 255), name, magnitude, **options).permute(1, 2, 0).numpy() == 255
            view, expected = view[inside], expected[inside]
        assert expected.size == 0 or np.abs(view - expected).mean() < 1, (name, magnitude)


@pytest.mark.parametrize("policy", AUGMENT)
@pytest.mark.parametrize("size", [(300, 150), (200, 200)])
def test_off_means_off(policy, size):
    """Letters stay readable without mirroring, and nothing is cropped, turned or recoloured that is not to be."""
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    options = {} if policy != "standard" else {"rotation": 0.0, "color": 0.0}
    off = Augmentation.of(Preprocessing(64, 72), Recipe(augment=policy, mirror="off", crop_scale=1.0, **options))
    drawn = off.draw(200, torch.Generator().manual_seed(0))
    assert (drawn.mirror == 1).all() and (drawn.angle == 0).all() and (drawn.area == 1).all()
    if policy == "standard":
        assert all((getattr(drawn, name) == 1).all() for name in ("warmth", "brightness", "saturation", "contrast"))
    if policy == "none":
        served = torch.from_numpy(off.preprocessing.crop(image)[None].copy())
        view = off(served, torch.tensor([image.width / image.height]), drawn[slice(0, 1)])
        expected = off.preprocessing(image)[None]
        np.testing.assert_allclose(view.numpy(), expected, atol=1e-5)


def test_each_option_reaches_the_views():
    asked = Augmentation.of(PREPROCESSING, Recipe(mirror="off", crop_scale=0.9, rotation=30.0, color=2.0))
    assert (asked.mirror, asked.scale, asked.rotation) == (False, (0.9, 1.0), 30.0)
    assert (asked.brightness, asked.temperature) == (0.3, 0.06)
    assert Augmentation.of(PREPROCESSING, Recipe()) == Augmentation(PREPROCESSING)
