"""The images of a split, decoded once into memory.

Decoding is by far the slowest step of the input pipeline, so each image is decoded once, at slightly more than the
network's size, into one array of bytes: in memory where it fits, otherwise in a file that the system caches. The
workers of one host share the array, and the work.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...core.decoding import ImageError, decode
from ...core.machine import memory_bytes
from ...core.transforms import Preprocessing
from ..distributed.group import ALONE, Workers
from .image_folder import Split
from .listing import DataSetError, some

log = logging.getLogger(__name__)

# The decoded training images are this much larger than the network's input, so that a crop of a part of one still
# has as many pixels as the network sees.
CACHE_MARGIN = 1.25

# Where one process finds what another one has open (proc(5)). Without it, as on macOS, each worker has its own array.
_OPEN_FILES = Path("/proc/self/fd")


@dataclass(frozen=True)
class Images:
    """The decoded images of one split; those that could not be read are left out."""

    pixels: npt.NDArray[np.uint8]  # [N, side, side, 3]
    aspects: npt.NDArray[np.float32]  # [N], width / height of the original images
    targets: npt.NDArray[np.int64]  # [N]
    skipped: dict[str, str] = field(default_factory=dict)  # the unreadable files, with the reasons

    def __len__(self) -> int:
        return len(self.targets)


def decode_for_serving(split: Split, preprocessing: Preprocessing, threads: int, workers: Workers = ALONE) -> Images:
    """Decode images as the server does, as many at the same time as there are threads.

    Where `workers` are given, all of them must call this. Raises DataSetError when there is no room for the images.
    """
    return _decode(split, preprocessing.crop, preprocessing.input_size, preprocessing.resize_size, threads, workers)


def decode_for_augmentation(
    split: Split, preprocessing: Preprocessing, threads: int, workers: Workers = ALONE
) -> Images:
    """Decode whole images, from which `Augmentation` takes its crops; otherwise as `decode_for_serving`."""
    side = round(preprocessing.input_size * CACHE_MARGIN)
    return _decode(split, lambda image: whole_image(image, side), side, side, threads, workers)


def whole_image(image: Image.Image, side: int) -> npt.NDArray[np.uint8]:
    """Squeeze an image of any shape into a square, uint8 [side, side, 3]; augmentation undoes the squeezing."""
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def _decode(
    split: Split,
    prepare: Callable[[Image.Image], npt.NDArray[np.uint8]],
    side: int,
    shorter_side: int,
    threads: int,
    workers: Workers,
) -> Images:
    """Decode images, large JPEGs at a fraction of their size, and prepare each to uint8 [side, side, 3]."""
    shared = workers.local_size > 1 and _OPEN_FILES.is_dir()
    arrays = 1 if shared else workers.local_size
    workers = workers if shared else ALONE
    pixels = _allocate((len(split), side, side, 3), memory_bytes() // (4 * arrays), workers)

    def read(index: int) -> float | str:
        """Return an image's aspect ratio, or why it cannot be read."""
        try:
            image = decode(split.paths[index].read_bytes(), target_size=shorter_side)
        except (ImageError, OSError) as error:
            return str(error)
        pixels[index] = prepare(image)  # here, so that no decoded image waits for anything
        return image.width / image.height

    here = replace(workers, rank=workers.local_rank, size=workers.local_size)
    own = range(len(split))[here.share(len(split))]
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda first: [(index, read(index)) for index in own[first::threads]], range(threads)))
    first = workers.rank - workers.local_rank
    found = dict(chain.from_iterable(chain(*workers.all_gather(parts)[first : first + workers.local_size])))

    kept: list[int] = []
    skipped: dict[str, str] = {}
    for index, path in enumerate(split.paths):
        if isinstance(result := found[index], float):
            kept.append(index)
            continue
        skipped[split.place(path)] = result
        log.warning("skipped %s: %s", some([split.place(path)]), result)
    if workers.local_rank == 0:
        for row, index in enumerate(kept):
            if row < index:
                pixels[row] = pixels[index]
    workers.all_gather(None)  # the array is complete
    aspects = np.asarray([found[index] for index in kept], np.float32)
    return Images(pixels[: len(kept)], aspects, np.asarray(split.targets, np.int64)[kept], skipped)


def _allocate(shape: tuple[int, int, int, int], limit: int, workers: Workers) -> npt.NDArray[np.uint8]:
    """Return an array of the host's workers, in memory up to a `limit` in bytes, otherwise in a temporary file."""
    size = int(np.prod(shape))
    if workers.local_size == 1 and size <= limit:
        return np.empty(shape, dtype=np.uint8)
    file, place, problem = None, "", ""
    if workers.local_rank == 0:
        try:
            file = _reserve(size, in_memory=size <= limit)
            place = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        except OSError as error:
            where = "memory" if size <= limit else tempfile.gettempdir()
            problem = (
                f"the decoded images need {size / 1e9:.1f} GB, which {where} does not have ({error.strerror}); "
                f"{limit / 1e9:.1f} GB may be in memory. Set TMPDIR to a larger volume, or use a smaller --input-size"
            )
    place, problem = workers.all_gather((place, problem))[workers.rank - workers.local_rank]
    if problem:
        raise DataSetError(problem)
    array = np.memmap(file or place, dtype=np.uint8, mode="r+", shape=shape)
    workers.all_gather(None)  # all have it
    if file is not None:
        file.close()
    return array


def _reserve(size: int, *, in_memory: bool) -> IO[bytes]:
    """Open a file of so many bytes without a name: it is gone with its processes, however they end.

    The space is allocated: in a sparse file, writing to the array on a full disk would kill the process (SIGBUS).
    """
    if in_memory:  # not in /dev/shm, which has 64 MB in a Docker container
        file: IO[bytes] = os.fdopen(os.memfd_create("images"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - in TMPDIR; the caller closes it
    try:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError:
        file.close()
        raise
    return file
