"""What a camera adds: exposure, colour cast, blur, vignette, noise, JPEG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from . import noise


def photographed(picture: Image.Image, rng: np.random.Generator, outdoors: bool) -> Image.Image:
    """The picture as a snapshot of it would come out."""
    if rng.random() < 0.35:
        picture = picture.filter(ImageFilter.BoxBlur(float(rng.uniform(0.2, 0.8))))
    width, height = picture.size
    pixels = np.asarray(picture).astype(np.float32)

    warmth = rng.normal(0.0 if outdoors else 0.04, 0.04)
    gains = np.array([1 + warmth, 1 + rng.normal(0, 0.015), 1 - warmth]) * rng.uniform(0.85, 1.12)
    pixels *= gains.astype(np.float32)
    light = _uneven_light(rng, width, height, outdoors)
    pixels *= light[:, :, None]
    contrast = rng.uniform(0.9, 1.15)
    pixels -= np.float32(118 * (1 - 1 / contrast))
    pixels *= np.float32(contrast)

    strength = rng.uniform(1.0, 5.0)
    offset = rng.integers(0, noise.TILE, 2).tolist()
    grain = noise.covering(noise.tile(0.0, 0.0, seed=3), width, height, (offset[0], offset[1]))
    pixels += (strength * grain)[:, :, None]
    np.clip(pixels, 0, 255, out=pixels)
    return Image.fromarray(pixels.astype(np.uint8))


def _uneven_light(rng: np.random.Generator, width: int, height: int, outdoors: bool) -> NDArray[np.float32]:
    """Vignette, a fall-off to one side, and dappled shade: a factor for each pixel."""
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle, fall = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.15)
    factor = 1 - rng.uniform(0, 0.16) * (x * x + y * y) + fall * (np.cos(angle) * x + np.sin(angle) * y)
    if outdoors and rng.random() < 0.25:
        size = rng.uniform(0.9, 2.0)
        rows = np.arange(height) * (size * 60 / height) + rng.integers(noise.TILE)
        columns = np.arange(width) * (size * 60 / height) + rng.integers(noise.TILE)
        shade = np.clip(noise.looked_up(noise.blotches(), columns, rows[:, None]) * 0.55 + 0.5, 0, 1)
        factor = factor * (1 - np.float32(rng.uniform(0.15, 0.5)) * shade)
    return factor.astype(np.float32)


def as_jpeg(picture: Image.Image, rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=int(rng.integers(62, 94)))
    return stream.getvalue()
