"""Draws a whole data set: many pictures in several processes, complete or not at all."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from cli.parallel import processors

from .breeds import BREEDS, Breed
from .picture import draw_picture

SPLITS = ("train", "valid", "test")
MARKER = "dataset.json"
PICTURES_PER_TASK = 8
SMALLEST_SIDE, LARGEST_SIDE = 48, 1024

Progress = Callable[[int, int], None]
"""Called with how many pictures are finished and how many there will be."""


class DrawingError(ValueError):
    """The data set cannot be drawn as asked; the message says what to change."""


@dataclass(frozen=True)
class Summary:
    """What lies in the folder now."""

    destination: Path
    classes: tuple[str, ...]  # folder names, sorted: the order of the labels
    per_class: tuple[int, int, int]  # train, valid, test
    pictures: int
    seed: int
    digest: str  # sha256 over the names and bytes of all pictures
    reused: bool  # the same set was there already, untouched, and nothing had to be drawn


@dataclass(frozen=True)
class _Task:
    folder: Path
    split: str
    breed: Breed
    first: int
    count: int
    size: tuple[int, int]
    seed: int


def folder_name(breed: Breed) -> str:
    """`005.Pug`: numbered like the folders of the photographed breeds data set."""
    return f"{BREEDS.index(breed) + 1:03d}.{breed.name}"


def draw_data_set(
    destination: Path,
    *,
    breeds: int | Sequence[str] | None = None,
    per_class: tuple[int, int, int] = (90, 15, 15),
    size: tuple[int, int] = (160, 320),
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Draw pictures of dogs into `destination/{train,valid,test}/NNN.Breed_name/`.

    The same arguments give the same bytes, whatever the number of workers: each picture's generator is seeded with
    (seed, split, breed, number), so no picture is shared between splits either. A set that this function drew before
    is replaced, or kept if it is the one asked for; any other folder is left alone. The set appears under its name only
    when it is complete.

    Parameters
    ----------
    breeds
        How many (the first of `BREEDS`, which is sorted so that any number of them is a varied lot), or which, by name;
        all by default.
    per_class
        Number of pictures of each breed for training, validation and test.
    size
        Smallest and largest length of a picture's longer side, in pixels.
    workers
        Number of processes; by default one for each processor this process may use.

    Raises
    ------
    DrawingError
        If an argument is out of range, `destination` holds something else, or it cannot be written.
    """
    destination = Path(destination)
    chosen = _chosen_breeds(breeds)
    _check(per_class, size, seed, workers)
    recipe = {
        "breeds": [breed.name for breed in chosen],
        "per_class": list(per_class),
        "size": list(size),
        "seed": seed,
        "revision": _revision(),
    }
    existing = _existing(destination)
    classes = tuple(folder_name(breed) for breed in chosen)
    pictures = len(chosen) * sum(per_class)
    if existing is not None and existing["recipe"] == recipe:
        return Summary(destination, classes, per_class, pictures, seed, existing["digest"], reused=True)

    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{destination.name}.drawing-", dir=destination.parent))
    except OSError as error:
        raise DrawingError(f"Cannot write beside {destination}: {error.strerror}. Choose another folder.") from error
    try:
        unfinished.chmod(0o755)  # mkdtemp's folders are private; a data set is an ordinary folder
        tasks = list(_tasks(unfinished, chosen, per_class, size, seed))
        _draw_all(tasks, workers or processors(), pictures, progress)
        digest = _digest(unfinished)
        marker = {"drawn_by": "kennel data sample", "recipe": recipe, "pictures": pictures, "digest": digest}
        (unfinished / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        _put_in_place(unfinished, destination)
    except OSError as error:
        raise DrawingError(f"Cannot write the data set {destination}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Summary(destination, classes, per_class, pictures, seed, digest, reused=False)


def _chosen_breeds(breeds: int | Sequence[str] | None) -> tuple[Breed, ...]:
    if breeds is None:
        return BREEDS
    if isinstance(breeds, int):
        if not 2 <= breeds <= len(BREEDS):
            raise DrawingError(f"{breeds} breeds were asked for; between 2 and {len(BREEDS)} can be drawn.")
        return BREEDS[:breeds]
    wanted = set(breeds)
    names = [breed.name for breed in BREEDS]
    unknown = sorted(wanted.difference(names))
    if unknown:
        raise DrawingError(f"No such breed: {', '.join(unknown)}. Those that can be drawn: {', '.join(names)}.")
    if len(wanted) < 2:
        raise DrawingError("A classifier needs at least 2 breeds.")
    return tuple(breed for breed in BREEDS if breed.name in wanted)


def _check(per_class: tuple[int, int, int], size: tuple[int, int], seed: int, workers: int | None) -> None:
    problems = []
    if len(per_class) != 3 or min(per_class) < 1:
        problems.append(f"each of train, valid and test needs at least 1 picture per breed, not {tuple(per_class)}")
    if not SMALLEST_SIDE <= size[0] <= size[1] <= LARGEST_SIDE:
        problems.append(f"sizes go from {SMALLEST_SIDE} to {LARGEST_SIDE} pixels, smallest first, not {tuple(size)}")
    if seed < 0:
        problems.append(f"the seed is a number from 0 up, not {seed}")
    if workers is not None and workers < 1:
        problems.append(f"at least 1 worker is needed, not {workers}")
    if problems:
        raise DrawingError("Cannot draw this: " + "; ".join(problems) + ".")


def _tasks(
    folder: Path, breeds: tuple[Breed, ...], per_class: tuple[int, int, int], size: tuple[int, int], seed: int
) -> Iterator[_Task]:
    for split, count in zip(SPLITS, per_class, strict=True):
        for breed in breeds:
            (folder / split / folder_name(breed)).mkdir(parents=True)
            for first in range(0, count, PICTURES_PER_TASK):
                yield _Task(folder, split, breed, first, min(PICTURES_PER_TASK, count - first), size, seed)


def _draw_all(tasks: list[_Task], workers: int, pictures: int, progress: Progress | None) -> None:
    finished = 0

    def report(count: int) -> None:
        nonlocal finished
        finished += count
        if progress is not None:
            progress(finished, pictures)

    if workers == 1:
        for task in tasks:
            report(_draw_task(task))
        return
    # Spawned, not forked: the caller may well have threads (a progress bar has), and fork would copy their locks.
    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(tasks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    try:
        for future in as_completed([pool.submit(_draw_task, task) for task in tasks]):
            report(future.result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    # Ctrl-C goes to every process of the terminal; only the first one should act on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Nobody tells a pool's worker that its parent was killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _draw_task(task: _Task) -> int:
    folder = task.folder / task.split / folder_name(task.breed)
    for index in range(task.first, task.first + task.count):
        # Names enter by checksum, so that a picture does not depend on which other breeds are drawn.
        entropy = [task.seed, zlib.crc32(task.split.encode()), zlib.crc32(task.breed.name.encode()), index]
        picture = draw_picture(task.breed, np.random.default_rng(entropy), task.size)
        (folder / f"{task.breed.name}_{index + 1:04d}.jpg").write_bytes(picture)
    return task.count


def _existing(destination: Path) -> dict[str, Any] | None:
    """The marker of a set that we drew and nobody has touched; None if nothing is there.

    Raises
    ------
    DrawingError
        If there is anything that drawing would destroy.
    """
    if not os.path.lexists(destination):
        return None
    advice = "Choose another folder, or remove this one yourself."
    if destination.is_symlink() or not destination.is_dir():
        raise DrawingError(f"{destination} is not a folder. {advice}")
    if not any(destination.iterdir()):
        return None
    try:
        marker = json.loads((destination / MARKER).read_text(encoding="utf-8"))
        ours = marker["drawn_by"] == "kennel data sample" and isinstance(marker["recipe"], dict)
        digest = marker["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise DrawingError(f"{destination} holds something that was not drawn here, so it is left alone. {advice}")
    if _digest(destination) != digest:
        raise DrawingError(f"{destination} was changed after it was drawn, so it is left alone. {advice}")
    return marker


def _digest(folder: Path) -> str:
    """sha256 over the relative names and contents of all files but hidden ones and the marker."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name == MARKER or not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        whole.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _revision() -> str:
    """What else the bytes depend on: this package's code and the two libraries that it draws with."""
    whole = hashlib.sha256(f"{np.__version__} {PIL.__version__}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:16]


def _put_in_place(unfinished: Path, destination: Path) -> None:
    """Give the finished set its name; an older one of ours steps aside first and is removed last."""
    if not destination.exists():
        unfinished.rename(destination)
        return
    old = unfinished.with_name(unfinished.name + "-old")
    destination.rename(old)
    try:
        unfinished.rename(destination)
    except OSError:
        old.rename(destination)
        raise
    shutil.rmtree(old)
