"""A copy of a data set in the size that a network sees, so that what is sent, stored and decoded becomes small."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cli.data.dataset import data_set_errors, only_writer, whole_folder
from cli.errors import NotReadyError
from cli.parallel import map_unordered
from model.training.data.image_folder import ImageFile, ImageFolder
from model.training.data.listing import JPEG_SUFFIXES, reading

MARKER = ".shrunk"
QUALITY = 90  # of the JPEG; its usual step from "invisible" to "hardly visible" losses
_LARGE_FILE = 2**20  # bytes; small images with more of them carry other things than pixels, or are long strips


@dataclass
class Shrunk:
    """The bytes of the copied images, in the original and in the copy, and why others cannot be read."""

    bytes_before: int = 0
    bytes_after: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


def shrink_data_set(
    folder: ImageFolder, destination: Path, *, side: int = 256, report: Callable[[int], None] = lambda done: None
) -> Shrunk:
    """Write a copy of a usable data set whose images' shorter sides are at most `side` pixels.

    Larger images, and files of more than a MiB, become JPEGs of quality 90, upright as the camera noted; those of other
    formats get a further suffix ``.jpg``. What is small, or would not become smaller, is copied byte for byte. The copy
    has ``train|valid|test/<class>/``, also where the original had no splits: re-encoded images would be split
    differently. It appears under its name when it is complete, in place of an earlier copy. A NotReadyError says that
    the destination holds something else, lies inside the original, or cannot be written, or that a class would be lost.
    """
    source, target = folder.root.resolve(), destination.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise NotReadyError(f"The copy cannot be {destination}: it and the original {folder.root} would mix.")
    is_empty = destination.is_dir() and not any(destination.iterdir())
    if os.path.lexists(destination) and not is_empty and not (destination / MARKER).is_file():
        raise NotReadyError(f"{destination} was not made by shrinking, so it is left alone.", "Choose another folder.")
    total = Shrunk()
    with only_writer(target.parent), whole_folder(target) as new:
        # What runs at Ctrl-C has ended before the folder is removed.
        with closing(map_unordered(partial(_shrink, new, side), folder.images, report=report)) as copies:
            for image, copied in copies:
                if isinstance(copied, str):
                    total.unreadable[image.path.relative_to(folder.root).as_posix()] = copied
                    continue
                total.bytes_before += copied[0]
                total.bytes_after += copied[1]
        with data_set_errors():
            for split in folder.splits.values():
                split.refuse_unreadable(total.unreadable)
        (new / MARKER).touch()
    return total


def _shrink(folder: Path, side: int, image: ImageFile) -> tuple[int, int] | str:
    """Write an image's copy; return the bytes before and after, or why it cannot be read."""
    from model.core.decoding import ImageError

    with data_set_errors(), reading(image.path):
        content = image.path.read_bytes()
    try:
        smaller = _smaller(content, side)
    except ImageError as error:
        return str(error)
    is_jpeg = image.key.lower().endswith(tuple(JPEG_SUFFIXES))
    target = folder / (image.key if is_jpeg or not smaller else f"{image.key}.jpg")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("xb") as file:
            file.write(smaller or content)
    except FileExistsError as error:
        other = target.relative_to(folder)
        raise NotReadyError(f"{image.key} would become {other}, which is there, too.", "Rename one of them.") from error
    return len(content), len(smaller or content)


def _smaller(content: bytes, side: int) -> bytes | None:
    """Return the image, its shorter side at most `side` pixels, as a JPEG, or None where it is best left as it is."""
    from PIL import Image

    from model.core.decoding import decode

    image = decode(content, target_size=side)
    shorter = min(image.size)  # of what a JPEG was decoded at, which is larger than `side` if the image is
    if shorter <= side and len(content) <= _LARGE_FILE:
        return None
    scale = min(1, side / shorter)
    size = (round(image.width * scale), round(image.height * scale))
    file = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=QUALITY)
    return file.getvalue() if file.tell() < len(content) else None
