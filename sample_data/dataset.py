"""Draws a whole data set: many images in several processes, complete or not at all."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import tempfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import PIL

from .breeds import BREEDS
from .image import draw_image

MARKER = "dataset.json"
_DRAWN_BY = "kennel data sample"
_SIZE = (160, 320)  # pixels: least and greatest length of an image's longer side
_WORTH_A_PROCESS = 40  # images; one more process takes a second to start


class DrawingError(ValueError):
    """The data set cannot be drawn there; the message says what to do."""


def draw_data_set(
    destination: Path,
    *,
    breeds: int,
    per_class: tuple[int, int, int],
    seed: int,
    report: Callable[[int], None] = lambda done: None,
) -> bool:
    """Draw images of dogs into `destination/{train,valid,test}/NNN.Breed_name/`.

    The same arguments give the same bytes. The set appears under its name only when it is complete. One that was drawn
    before, and nobody has touched, is replaced; or kept if it is the one asked for: False says so. A DrawingError says
    that something else is there, or that the folder cannot be written. `breeds`: how many, from the first of `BREEDS`
    on, which is sorted so that any number of them is a varied lot. `per_class`: images of each breed for training,
    validation and test; `report` is told how many are drawn.
    """
    recipe = {"breeds": breeds, "per_class": list(per_class), "seed": seed, "revision": _revision()}
    try:
        if _existing_recipe(destination) == recipe:
            return False
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{destination.name}.drawing-", dir=destination.parent) as name:
            unfinished = Path(name, "new")
            _draw(unfinished, breeds, per_class, seed, report)
            marker = {"drawn_by": _DRAWN_BY, "recipe": recipe, "digest": _digest(unfinished)}
            (unfinished / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
            if destination.exists():  # an older one of ours
                destination.rename(Path(name, "old"))
            unfinished.rename(destination)
    except OSError as error:
        raise DrawingError(f"Cannot write the data set {destination}: {error.strerror or error}.") from error
    return True


def _draw(folder: Path, breeds: int, per_class: tuple[int, int, int], seed: int, report: Callable[[int], None]) -> None:
    tasks = [
        (split, breed, number)
        for split, count in zip(("train", "valid", "test"), per_class, strict=True)
        for breed in range(breeds)
        for number in range(count)
    ]
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(processors, len(tasks) // _WORTH_A_PROCESS)
    draw_one = partial(_draw_one, folder, seed, _SIZE)
    if processes < 2:
        for done, task in enumerate(tasks, start=1):
            draw_one(task)
            report(done)
        return
    # Spawned, not forked: the caller may have threads (a progress bar has), and fork would copy their locks.
    # Ctrl-C goes to every process of the terminal; only the first one acts on it.
    with multiprocessing.get_context("spawn").Pool(processes, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        for done, _ in enumerate(pool.imap_unordered(draw_one, tasks, chunksize=8), start=1):
            report(done)


def _draw_one(folder: Path, seed: int, size: tuple[int, int], task: tuple[str, int, int]) -> None:
    split, breed, number = task
    name = BREEDS[breed].name
    # Names enter by checksum, so that an image does not depend on which other breeds are drawn.
    entropy = [seed, zlib.crc32(split.encode()), zlib.crc32(name.encode()), number]
    # Numbered like the folders of the photographed breeds data set.
    path = folder / split / f"{breed + 1:03d}.{name}" / f"{name}_{number + 1:04d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(draw_image(BREEDS[breed], np.random.default_rng(entropy), size))


def _existing_recipe(destination: Path) -> object:
    """Return the recipe of a set that any version drew and nobody has touched; None if nothing is there."""
    if not os.path.lexists(destination):
        return None
    if destination.is_dir() and not destination.is_symlink():
        if not any(destination.iterdir()):
            return None
        try:
            marker = json.loads((destination / MARKER).read_text(encoding="utf-8"))
            if marker["drawn_by"] == _DRAWN_BY and marker["digest"] == _digest(destination):
                return marker["recipe"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
    raise DrawingError(
        f"{destination} holds something else, was changed since, or drawn by an earlier version without a checksum. "
        "It is left alone. Choose another folder, or remove this one yourself."
    )


def _digest(folder: Path) -> str:
    """Hash the relative names and contents of all files but the marker, and what macOS leaves in a folder."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and relative != Path(MARKER) and path.name != ".DS_Store":
            whole.update(relative.as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _revision() -> str:
    """Hash what else the bytes depend on: this package's files and the two libraries that it draws with."""
    whole = hashlib.sha256(f"{np.__version__} {PIL.__version__}".encode())
    for path in sorted(Path(__file__).parent.glob("*.*")):
        whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:16]
