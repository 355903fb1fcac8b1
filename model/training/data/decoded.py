"""The images of a split, decoded once into memory.

Decoding is by far the slowest step of the input pipeline, so each image is decoded once, at slightly more than the
network's size, into one array of bytes: in memory where it fits, otherwise in a file that the system caches.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...core.decoding import ImageError, decode
from ...core.transforms import Preprocessing
from .image_folder import Split
from .listing import DataSetError

log = logging.getLogger(__name__)

# The decoded training images are this much larger than the network's input, so that a crop of a part of one still
# has as many pixels as the network sees.
CACHE_MARGIN = 1.25


@dataclass(frozen=True)
class Images:
    """The decoded images of one split; those that could not be read are left out."""

    pixels: npt.NDArray[np.uint8]  # [N, side, side, 3]
    aspects: npt.NDArray[np.float32]  # [N], width / height of the original images
    targets: npt.NDArray[np.int64]  # [N]
    skipped: dict[str, str] = field(default_factory=dict)  # the unreadable files, with the reasons

    def __len__(self) -> int:
        return len(self.targets)


def decode_for_serving(split: Split, preprocessing: Preprocessing, threads: int) -> Images:
    """Decode images as the server does, as many at the same time as there are threads."""
    return _decode(split, preprocessing.crop, preprocessing.input_size, preprocessing.resize_size, threads)


def decode_for_augmentation(split: Split, preprocessing: Preprocessing, threads: int) -> Images:
    """Decode whole images, from which `Augmentation` takes its crops; otherwise as `decode_for_serving`."""
    side = round(preprocessing.input_size * CACHE_MARGIN)
    return _decode(split, lambda image: whole_image(image, side), side, side, threads)


def whole_image(image: Image.Image, side: int) -> npt.NDArray[np.uint8]:
    """Squeeze an image of any shape into a square, uint8 [side, side, 3]; augmentation undoes the squeezing."""
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def _decode(
    split: Split, prepare: Callable[[Image.Image], npt.NDArray[np.uint8]], side: int, shorter_side: int, threads: int
) -> Images:
    """Decode images, large JPEGs at a fraction of their size, and prepare each to uint8 [side, side, 3]."""
    pixels = _allocate((len(split), side, side, 3))

    def read(path: Path) -> tuple[npt.NDArray[np.uint8], float] | str:
        try:
            image = decode(path.read_bytes(), target_size=shorter_side)
        except (ImageError, OSError) as error:
            return str(error)
        return prepare(image), image.width / image.height

    kept: list[int] = []
    aspects: list[float] = []
    skipped: dict[str, str] = {}
    with ThreadPoolExecutor(threads) as pool:
        for path, target, result in zip(split.paths, split.targets, pool.map(read, split.paths), strict=True):
            if isinstance(result, str):
                skipped[split.place(path)] = result
                log.warning("skipped %s: %s", split.place(path), result)
                continue
            pixels[len(kept)], aspect = result
            aspects.append(aspect)
            kept.append(target)
    return Images(pixels[: len(kept)], np.asarray(aspects, np.float32), np.asarray(kept, np.int64), skipped)


def _allocate(shape: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    """Return an array in memory, or in an unnamed temporary file when it would take more than a quarter of memory."""
    size = int(np.prod(shape))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size <= memory // 4:
        return np.empty(shape, dtype=np.uint8)
    # The file has no name, so that it is gone with the process, however that ends. TMPDIR says where it lies.
    with tempfile.TemporaryFile() as file:
        free = os.statvfs(file.fileno())
        if free.f_bavail * free.f_frsize < size:
            raise DataSetError(
                f"the decoded images need {size / 1e9:.1f} GB, more than a quarter of memory and more than is free "
                f"in {tempfile.gettempdir()}; set TMPDIR to a larger volume, or use a smaller --input-size"
            )
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)
