"""A data set that a network learns in seconds, for the training tests: discs, bars and noise of any colour."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from serving_fixtures import encode

LABELS = ("001.Disc_hound", "002.Épagneul barré", "plain")
FAST = ["--architecture", "resnet9", "--input-size", "32", "--epochs", "2", "--batch-size", "12", "--num-cpus", "2"]


def draw(kind: int, seed: int, *, format: str = "PNG") -> bytes:
    random = np.random.default_rng([kind, seed])
    width, height = (int(value) for value in random.integers(40, 90, 2))
    background, colour = (tuple(int(value) for value in random.integers(0, 256, 3)) for _ in range(2))
    image = Image.new("RGB", (width, height), background)
    draw = ImageDraw.Draw(image)
    size = min(width, height) * 0.3
    if kind == 0:
        draw.ellipse((width / 2 - size, height / 2 - size, width / 2 + size, height / 2 + size), fill=colour)
    elif kind == 1:
        for x in range(0, width, 8):
            draw.rectangle((x, 0, x + 3, height), fill=colour)
    return encode(image, format)


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every write that is forced to the disk fail, as on a full one."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)


def write_files(root: Path, *names: str) -> Path:
    """Write files whose contents are their names; return the root."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode(errors="surrogateescape"))
    return root


def write_data_set(root: Path, *, train: int = 12, valid: int = 4, test: int = 4) -> Path:
    """Write so many images of every class; 0 leaves the split out."""
    for offset, (split, count) in enumerate((("train", train), ("valid", valid), ("test", test))):
        for kind, label in enumerate(LABELS):
            for index in range(count):
                path = root / split / label / f"{index:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(draw(kind, 1000 * offset + index))
    return root
