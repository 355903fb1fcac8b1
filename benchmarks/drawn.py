"""Drawn classes to measure with: stars of any colour, size, place and turn on a blurred ground."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def draw_star(kind: int, random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Draw a star of one of the classes, RGB of `size` pixels: 3 + kind // 2 points, sharp or blunt."""
    coarse = random.integers(0, 256, 3) + random.normal(0, 40, (6, 8, 3))
    image = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    points = 3 + kind // 2
    corners = np.arange(2 * points)
    angles = random.uniform(0, 2 * np.pi) + corners * np.pi / points
    radii = min(size) * random.uniform(0.2, 0.4) * np.where(corners % 2, 0.4 if kind % 2 else 0.8, 1.0)
    centre = np.array(size) * random.uniform(0.4, 0.6, 2)
    outline = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    colour = tuple(random.integers(0, 256, 3).tolist())
    ImageDraw.Draw(image).polygon([tuple(corner) for corner in outline.tolist()], fill=colour)
    return image


def write_data_set(
    root: Path, kinds: Iterable[int], per_class: tuple[int, int, int], *, size: tuple[int, int] = (320, 240)
) -> None:
    """Write so many JPEG files of every class into `root/{train,valid,test}/class NN/`."""
    for kind in kinds:
        for number, (split, count) in enumerate(zip(("train", "valid", "test"), per_class, strict=True)):
            folder = root / split / f"class {kind:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                image = draw_star(kind, np.random.default_rng([kind, number, index]), size)
                image.save(folder / f"{index:04d}.jpg", quality=90)
