"""The images of a split, decoded once into memory.

Decoding is by far the slowest step of the input pipeline, and an epoch needs every image again, so each is decoded
once, at slightly more than the network's size, into one array of bytes: in memory where it fits, otherwise in a file
that the operating system caches as far as it can. torch is not needed here.
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
from .dataset import DataSet
from .image_folder import DataSetError

log = logging.getLogger(__name__)

# The decoded training images are this much larger than the network's input, so that a crop of a part of one still
# has as many pixels as the network sees.
CACHE_MARGIN = 1.25


@dataclass(frozen=True)
class Images:
    """The decoded images of one split; those that could not be read are left out.

    Attributes
    ----------
    pixels : uint8 [N, side, side, 3]
    aspects : float32 [N], width / height of the original images
    targets : int64 [N]
    skipped : for each unreadable file, its path below the data set's folder and the reason
    """

    pixels: npt.NDArray[np.uint8]
    aspects: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.targets)


def whole_image(image: Image.Image, side: int) -> npt.NDArray[np.uint8]:
    """Squeeze an image of any shape into a square, uint8 [side, side, 3]; augmentation undoes the squeezing."""
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def load(
    data_set: DataSet,
    split: str,
    prepare: Callable[[Image.Image], npt.NDArray[np.uint8]],
    side: int,
    shorter_side: int,
    *,
    threads: int,
    allow_none: bool = False,
) -> Images:
    """Decode one split's images, as many at the same time as there are threads.

    `prepare` makes uint8 [side, side, 3] of an RGB image. A large JPEG is decoded at a fraction of its size, whose
    shorter side has at least `shorter_side` pixels. That no image can be read is an error unless `allow_none`.
    """
    chosen = data_set.splits[split]
    pixels = _allocate((len(chosen), side, side, 3))

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
        for (path, target), result in zip(chosen.images(), pool.map(read, chosen.paths), strict=True):
            if isinstance(result, str):
                name = str(path.relative_to(data_set.root))
                log.warning("skipped %s: %s", name, result)
                skipped[name] = result
                continue
            pixels[len(kept)], aspect = result
            aspects.append(aspect)
            kept.append(target)
    if not kept and not allow_none:
        name, reason = next(iter(skipped.items()))
        raise DataSetError(
            f"none of the {len(chosen)} files in {data_set.root / split} is a readable picture; {name}: {reason}"
        )
    return Images(pixels[: len(kept)], np.asarray(aspects, dtype=np.float32), np.asarray(kept, dtype=np.int64), skipped)


def decode_for_serving(
    data_set: DataSet, split: str, preprocessing: Preprocessing, threads: int, *, allow_none: bool = False
) -> Images:
    """Decode one split as the server would; see `load`."""
    side, shorter_side = preprocessing.input_size, preprocessing.resize_size
    return load(data_set, split, preprocessing.crop, side, shorter_side, threads=threads, allow_none=allow_none)


def decode_for_augmentation(
    data_set: DataSet, split: str, preprocessing: Preprocessing, threads: int, *, allow_none: bool = False
) -> Images:
    """Decode one split as whole images, from which `Augmentation` takes its crops; see `load`."""
    side = round(preprocessing.input_size * CACHE_MARGIN)
    return load(
        data_set, split, lambda image: whole_image(image, side), side, side, threads=threads, allow_none=allow_none
    )


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
                f"the decoded pictures need {size / 1e9:.1f} GB, more than a quarter of memory and more than is free "
                f"in {tempfile.gettempdir()}; set TMPDIR to a larger volume, or use a smaller --input-size"
            )
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)
