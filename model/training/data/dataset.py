"""A folder-per-class data set: what is in it, and its pictures decoded once into memory.

The layout is `ROOT/train|valid|test/<class>/<pictures>`. Decoding is by far the slowest step of the input pipeline,
and an epoch needs every picture again, so each is decoded once, at slightly more than the network's size, into one
array of bytes: in memory where it fits, otherwise in a file that the operating system caches as far as it can.
torch is not needed here.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...core.decoding import ImageError, decode
from ...core.transforms import Preprocessing

log = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
_LAYOUT = "the layout is <folder>/train|valid|test/<class>/<pictures>"
# The decoded training pictures are this much larger than the network's input, so that a crop of a part of one still
# has as many pixels as the network sees.
CACHE_MARGIN = 1.25
_SORTING_PREFIX = re.compile(r"^\d{3}\.(?=.)")


class DataSetError(Exception):
    """The data set cannot be used. The message says what is wrong and what is allowed."""


@dataclass(frozen=True)
class Split:
    """The pictures of one split, sorted by class and then by file name.

    Attributes
    ----------
    name : str
        One of `SPLITS`.
    paths : tuple of Path
    targets : tuple of int
        For each path the index of its class.
    """

    name: str
    paths: tuple[Path, ...]
    targets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def pictures(self) -> Iterator[tuple[Path, int]]:
        """Yield each path with its target."""
        return zip(self.paths, self.targets, strict=True)


@dataclass(frozen=True)
class DataSet:
    """What `discover` found.

    Attributes
    ----------
    root : Path
    labels : tuple of str
        The class folders' names in the order of the network's outputs (sorted).
    splits : dict of str to Split
        "train" and "valid" always, "test" when there is one.
    """

    root: Path
    labels: tuple[str, ...]
    splits: dict[str, Split]

    @property
    def counts(self) -> dict[str, int]:
        """Number of files per split."""
        return {name: len(split) for name, split in self.splits.items()}

    @property
    def absent_classes(self) -> dict[str, list[str]]:
        """The labels of which a split has no file, for every split that lacks any."""
        present = {name: set(split.targets) for name, split in self.splits.items()}
        absent = {
            name: [label for index, label in enumerate(self.labels) if index not in targets]
            for name, targets in present.items()
        }
        return {name: labels for name, labels in absent.items() if labels}


@dataclass(frozen=True)
class Pictures:
    """The decoded pictures of one split; those that could not be read are left out.

    Attributes
    ----------
    pixels : numpy.ndarray
        uint8 [N, side, side, 3].
    aspects : numpy.ndarray
        float32 [N], width / height of the original pictures.
    targets : numpy.ndarray
        int64 [N].
    skipped : dict of str to str
        For each unreadable file, its path below the data set's folder and the reason.
    """

    pixels: npt.NDArray[np.uint8]
    aspects: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.targets)


def discover(root: Path) -> DataSet:
    """List a data set's pictures.

    Hidden files and folders are ignored, and so are empty class folders. Class names are compared in one Unicode form
    (NFC), so that a set that was zipped on a Mac matches itself. A test split is optional.

    Raises
    ------
    DataSetError
        When a required split is missing or empty, there is only one class, a split has a class that the training
        split lacks, or a class's name is not text.
    """
    if not root.is_dir():
        raise DataSetError(f"there is no data set at {root}; {_LAYOUT}")
    found = {name: _classes(root / name) for name in SPLITS if (root / name).is_dir()}
    missing = [name for name in ("train", "valid") if name not in found]
    if missing:
        raise DataSetError(f"{root} has no folder {' and no folder '.join(missing)}; {_LAYOUT} (test is optional)")
    empty = [name for name, classes in found.items() if not classes]
    if empty:
        raise DataSetError(f"there are no pictures in {', '.join(str(root / name) for name in empty)}; {_LAYOUT}")
    labels = tuple(sorted(found["train"]))
    if len(labels) < 2:
        raise DataSetError(f"{root / 'train'} has only one class with pictures ({labels[0]}); at least two are needed")
    for name, classes in found.items():
        unknown = sorted(set(classes) - set(labels))
        if unknown:
            raise DataSetError(
                f"{root / name} has classes that {root / 'train'} lacks: {', '.join(map(repr, unknown))}; "
                "every class needs training pictures"
            )
    index = {label: position for position, label in enumerate(labels)}
    splits = {}
    for name, classes in found.items():
        pairs = [(path, index[label]) for label in sorted(classes) for path in classes[label]]
        splits[name] = Split(name, tuple(path for path, _ in pairs), tuple(target for _, target in pairs))
    data_set = DataSet(root, labels, splits)
    for name, absent in data_set.absent_classes.items():
        log.warning("the %s split has no pictures of %s", name, ", ".join(map(repr, absent)))
    return data_set


def _classes(folder: Path) -> dict[str, list[Path]]:
    classes: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        files = [
            path
            for path in sorted(entry.rglob("*"))
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(entry).parts)
        ]
        if files:
            if any("\ud800" <= letter <= "\udfff" for letter in entry.name):  # bytes that are no text: no label either
                raise DataSetError(f"{str(entry)!r} is not a name in UTF-8; rename the folder")
            classes.setdefault(unicodedata.normalize("NFC", entry.name), []).extend(files)
    return classes


def display_labels(labels: Sequence[str]) -> list[str]:
    """Return the labels as people read them: "001.Carolina_dog" is shown as "Carolina dog".

    Names that would then be the same stay as they are.
    """
    shown = [_SORTING_PREFIX.sub("", label).replace("_", " ") for label in labels]
    times = Counter(shown)
    return [label if times[name] > 1 else name for label, name in zip(labels, shown, strict=True)]


@dataclass(frozen=True)
class Fingerprint:
    """The identity of a data set's content.

    Attributes
    ----------
    digest : str
        "sha256:" and the hexadecimal hash over every picture's split, class, name and bytes; where the folder lies
        does not matter.
    leaked : tuple of str
        Pictures of the other splits that are, byte for byte, in the training split too.
    """

    digest: str
    leaked: tuple[str, ...]


def fingerprint(data_set: DataSet) -> Fingerprint:
    """Hash a data set's content; the time is that of reading it once."""
    whole = hashlib.sha256()
    seen_in_training: set[bytes] = set()
    leaked = []
    for name, split in data_set.splits.items():  # "train" comes first
        for path, target in split.pictures():
            content = hashlib.sha256(path.read_bytes()).digest()
            # A zero byte cannot be part of a name, so no two different sets give the same stream.
            place = "\0".join((name, data_set.labels[target], unicodedata.normalize("NFC", path.name), ""))
            whole.update(place.encode(errors="surrogateescape") + content)
            if name == "train":
                seen_in_training.add(content)
            elif content in seen_in_training:
                leaked.append(str(path.relative_to(data_set.root)))
    if leaked:
        log.warning(
            "%d pictures are in the training split, too, which makes the accuracy look better than it is, such as %s",
            len(leaked),
            leaked[0],
        )
    return Fingerprint(f"sha256:{whole.hexdigest()}", tuple(leaked))


def whole_picture(image: Image.Image, side: int) -> npt.NDArray[np.uint8]:
    """Squeeze a picture of any shape into a square, uint8 [side, side, 3]; augmentation undoes the squeezing."""
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def load(
    data_set: DataSet,
    split: str,
    *,
    prepare: Callable[[Image.Image], npt.NDArray[np.uint8]],
    side: int,
    shorter_side: int,
    threads: int,
    allow_none: bool = False,
) -> Pictures:
    """Decode one split's pictures.

    Parameters
    ----------
    data_set : DataSet
    split : str
        Its name.
    prepare : callable
        From an RGB picture to uint8 [side, side, 3].
    side : int
        Pixels.
    shorter_side : int
        The least that the decoder must leave of a picture's shorter side, in pixels: a large JPEG is decoded at a
        fraction of its size.
    threads : int
        Pictures decoded at the same time; Pillow releases the interpreter lock while it works.
    allow_none : bool
        Whether no picture at all is a result, too, as it may be for a part of a split.

    Raises
    ------
    DataSetError
        When not one picture of the split can be read.
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
        for (path, target), result in zip(chosen.pictures(), pool.map(read, chosen.paths), strict=True):
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
    return Pictures(
        pixels[: len(kept)], np.asarray(aspects, dtype=np.float32), np.asarray(kept, dtype=np.int64), skipped
    )


def decode_for_serving(
    data_set: DataSet, split: str, preprocessing: Preprocessing, threads: int, *, allow_none: bool = False
) -> Pictures:
    """Decode one split as the server would; see `load`."""
    return load(
        data_set,
        split,
        prepare=preprocessing.crop,
        side=preprocessing.input_size,
        shorter_side=preprocessing.resize_size,
        threads=threads,
        allow_none=allow_none,
    )


def decode_for_augmentation(
    data_set: DataSet, split: str, preprocessing: Preprocessing, threads: int, *, allow_none: bool = False
) -> Pictures:
    """Decode one split as whole pictures, from which `Augmentation` takes its crops; see `load`."""
    side = round(preprocessing.input_size * CACHE_MARGIN)
    return load(
        data_set,
        split,
        prepare=lambda image: whole_picture(image, side),
        side=side,
        shorter_side=side,
        threads=threads,
        allow_none=allow_none,
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
