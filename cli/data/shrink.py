"""A copy of a data set in the size that a network sees, so that what is sent, stored and decoded becomes small."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cli.errors import NotReadyError
from cli.parallel import map_unordered
from model.core.machine import available_vcpus
from model.training.data.image_folder import ImageFile, ImageFolder

MARKER = ".shrunk.json"
QUALITY = 90  # of the JPEG; its usual step from "invisible" to "hardly visible" losses


@dataclass
class Shrunk:
    """What shrinking did.

    Attributes
    ----------
    shrunk, unchanged, kept : int
        Images written smaller, copied as they were because they were small, and there from an earlier run.
    bytes_before, bytes_after : int
        Of the images that the copy holds, in the original and in the copy.
    unreadable : dict of str to str
        Images that are left out, with the reason.
    """

    shrunk: int = 0
    unchanged: int = 0
    kept: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Copy:
    how: str  # "shrunk", "unchanged" or "kept"
    name: str  # below the copy's folder
    before: int  # bytes
    after: int


def shrink_data_set(
    folder: ImageFolder,
    destination: Path,
    *,
    side: int = 256,
    report: Callable[[int], None] = lambda done: None,
    threads: int | None = None,
) -> Shrunk:
    """Write a copy of a data set whose images' shorter sides are at most so long.

    Larger images become JPEGs of quality 90, upright as the camera noted; those of other formats get a further suffix
    ``.jpg``. Images that are small enough, or would not become smaller files, are copied byte for byte. The copy has
    ``train|valid|test/<class>/``, also where the original had no splits: re-encoded images would be split differently.

    The copy appears under its name when it is complete. An interrupted run, and a later one after the original has
    changed, only do what is missing: each image carries its original's time of modification.

    Parameters
    ----------
    side
        Pixels.
    report
        Called with the number of images done.
    threads
        One per processor by default: measured on two, threads shrink 530 images/s where processes shrink 430.

    Raises
    ------
    NotReadyError
        When the destination holds something else, lies inside the original, or cannot be written.
    """
    names = {image.key for image in folder.images}
    for key in names:
        if not _is_jpeg(key) and f"{key}.jpg" in names:
            raise NotReadyError(f"{key} would become {key}.jpg, which is there, too.", "Rename one of them.")
    unfinished = destination.with_name(f".{destination.name}.shrinking")
    total, made = Shrunk(), set()
    try:
        _prepare(folder.root, destination, unfinished, {"side": side, "quality": QUALITY})
        work = map_unordered(
            lambda image: _shrink(image, unfinished, side), folder.images, threads=threads or available_vcpus()
        )
        for done, (image, copy) in enumerate(work, start=1):
            report(done)
            if isinstance(copy, str):
                total.unreadable[image.key] = copy
                continue
            made.add(copy.name)
            setattr(total, copy.how, getattr(total, copy.how) + 1)
            total.bytes_before += copy.before
            total.bytes_after += copy.after
        _remove_others(unfinished, made)
        unfinished.rename(destination)
    except OSError as error:
        raise NotReadyError(f"{destination} cannot be written: {error.strerror or error}.") from error
    return total


def _is_jpeg(key: str) -> bool:
    return key.lower().endswith((".jpg", ".jpeg"))


def _prepare(root: Path, destination: Path, unfinished: Path, recipe: dict[str, int]) -> None:
    source, target = root.resolve(), destination.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise NotReadyError(f"The copy cannot be {destination}: it and the original {root} would mix.")
    if os.path.lexists(destination):
        marker = _marker(destination)
        if marker is None and (not destination.is_dir() or any(destination.iterdir())):
            raise NotReadyError(
                f"{destination} holds something that was not shrunk here, so it is left alone.",
                "Choose another folder.",
            )
        if marker not in (None, recipe):
            raise NotReadyError(
                f"{destination} was shrunk to {marker}, not to {recipe}.", "Choose another folder, or remove this one."
            )
        if marker is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
            destination.rename(unfinished)
    if unfinished.exists() and _marker(unfinished) != recipe:
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True, exist_ok=True)
    (unfinished / MARKER).write_text(json.dumps(recipe) + "\n", encoding="utf-8")


def _marker(folder: Path) -> object:
    try:
        return json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _shrink(image: ImageFile, folder: Path, side: int) -> _Copy | str:
    """Write an image's copy; return what was done, or why it cannot be read."""
    from model.core.decoding import ImageError

    other_name = image.key if _is_jpeg(image.key) else f"{image.key}.jpg"
    try:
        source = image.path.stat()
        for name in (image.key, other_name):  # of an earlier run
            if (folder / name).exists() and (folder / name).stat().st_mtime_ns == source.st_mtime_ns:
                return _Copy("kept", name, source.st_size, (folder / name).stat().st_size)
        content = image.path.read_bytes()
        smaller = _smaller(content, side)
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"It cannot be read: {error.strerror or error}."
    name = other_name if smaller else image.key
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.new")
    unfinished.write_bytes(smaller or content)
    # Before it has its name: an image with the original's time is one that is finished.
    os.utime(unfinished, ns=(source.st_atime_ns, source.st_mtime_ns))
    unfinished.replace(target)
    return _Copy("shrunk" if smaller else "unchanged", name, len(content), len(smaller or content))


def _smaller(content: bytes, side: int) -> bytes | None:
    """Return the image with a shorter side of `side` pixels as a JPEG, or None where it is best left as it is."""
    from PIL import Image

    from model.core.decoding import decode

    image = decode(content, target_size=side)
    shorter = min(image.size)  # of what a JPEG was decoded at, which is larger than `side` if the image is
    if shorter <= side:
        return None
    size = (round(image.width * side / shorter), round(image.height * side / shorter))
    file = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=QUALITY)
    return file.getvalue() if file.tell() < len(content) else None


def _remove_others(folder: Path, names: set[str]) -> None:
    """Remove copies of images that are no longer there, and what interrupted runs left."""
    for path in sorted(folder.rglob("*"), reverse=True):  # children before their parents
        if path.is_file() and path.name != MARKER and path.relative_to(folder).as_posix() not in names:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
