"""A folder-per-class data set on disk: finding its pictures, and splitting it where nobody has."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cli.errors import NotReadyError

SPLITS = ("train", "valid", "test")
SPLIT_FOLDERS = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid",
                "test": "test"}  # fmt: skip
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"})
_HOLD_OUT = 0.1  # share of a class that goes to the validation set, and again to the test set, when we split

_LAYOUT = (
    "Expected DIR/train/<class>/*.jpg with valid/ and test/ beside train/, or DIR/<class>/*.jpg "
    f"(then it is split here). Pictures end in {', '.join(sorted(PICTURE_SUFFIXES))}."
)


@dataclass(frozen=True)
class Picture:
    """One picture file and its place in the data set."""

    path: Path
    split: str
    label: str
    name: str  # below the class folder, with forward slashes

    @property
    def key(self) -> str:
        """Where it goes, relative to the data set: `train/<class>/<file>`."""
        return f"{self.split}/{self.label}/{self.name}"


@dataclass(frozen=True)
class DataSet:
    """All pictures below one folder."""

    root: Path
    pictures: list[Picture]
    ignored: list[Path] = field(default_factory=list)  # files that are no pictures by their name
    was_split: bool = False  # True when the folder had no splits of its own

    @property
    def labels(self) -> list[str]:
        """The class folders, in the order in which the model numbers them."""
        return sorted({picture.label for picture in self.pictures if picture.split == "train"})

    def counts(self) -> dict[str, int]:
        """Number of pictures by split, in the order train, valid, test."""
        found = Counter(picture.split for picture in self.pictures)
        return {split: found[split] for split in SPLITS if found[split]}


def read_data_set(root: Path) -> DataSet:
    """Find the pictures of a data set that a model can be trained on; see `find_data_set`.

    Raises
    ------
    NotReadyError
        When the folder is missing, holds no pictures, lacks a split, or has classes that `train/` lacks.
    """
    data_set = find_data_set(root)
    for problem in layout_problems(data_set):
        raise problem
    return data_set


def find_data_set(root: Path) -> DataSet:
    """Find the pictures of a folder-per-class data set, usable or not.

    Class names are compared in one Unicode form (NFC), so that a set that was zipped on a Mac matches itself.

    Parameters
    ----------
    root : Path
        A folder with `train/`, `valid/` (or `val/`, `validation/`) and `test/` that hold class folders, or with class
        folders directly; the latter is split 80/10/10 per class by the hash of each picture's bytes, so that the same
        pictures always land in the same split and copies of a picture never land in two.

    Raises
    ------
    NotReadyError
        When the folder is missing, two folders claim to be the same split, or a class that is to be split has too few
        pictures or one that cannot be read.
    """
    if not root.is_dir():
        raise NotReadyError(f"There is no data set at {root}.", f"{_LAYOUT}\nTo draw a small one: kennel data sample")
    folders = {path.name: path for path in _subfolders(root)}
    splits: dict[str, Path] = {}
    for name, path in folders.items():
        split = SPLIT_FOLDERS.get(name.lower())
        if split is not None and split in splits:
            raise NotReadyError(f"{splits[split]} and {path} are both the {split} split.", "Keep one of them.")
        if split is not None:
            splits[split] = path
    ignored: list[Path] = []
    if "train" in splits:
        pictures = [
            Picture(path, split, _class_name(label), name)
            for split, folder in splits.items()
            for label in _subfolders(folder)
            for path, name in _picture_files(label, ignored)
        ]
        return DataSet(root, pictures, ignored)
    classes: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for path in folders.values():
        classes[_class_name(path)] += _picture_files(path, ignored)
    return DataSet(root, _split({name: files for name, files in classes.items() if files}), ignored, True)


def named(folder: Path) -> Path:
    """The same folder by a path that ends in its name, which "." and ".." do not."""
    return folder.resolve() if folder.name in ("", "..") else folder


def read_file(path: Path) -> bytes:
    """The bytes of a picture file that has to be read.

    Raises
    ------
    NotReadyError
        When it cannot be: it may have vanished since it was found, or belong to somebody else.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotReadyError(
            f"{path} cannot be read: {error.strerror or error}.", "Make it readable or remove it."
        ) from error


def _class_name(folder: Path) -> str:
    return unicodedata.normalize("NFC", folder.name)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _picture_files(label: Path, ignored: list[Path]) -> Iterable[tuple[Path, str]]:
    for path in sorted(label.rglob("*")):
        relative = path.relative_to(label)
        if not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        if path.suffix.lower() in PICTURE_SUFFIXES:
            yield path, relative.as_posix()
        else:
            ignored.append(path)


def _split(classes: dict[str, list[tuple[Path, str]]]) -> list[Picture]:
    pictures = []
    for label, files in classes.items():
        by_content: dict[str, list[tuple[Path, str]]] = defaultdict(list)
        for path, name in files:
            by_content[hashlib.sha256(read_file(path)).hexdigest()].append((path, name))
        if len(by_content) < len(SPLITS):
            raise NotReadyError(
                f"The class {label!r} has {len(by_content)} different pictures; splitting it into train, valid and "
                f"test takes at least {len(SPLITS)}.",
                "Add pictures, remove the folder, or lay out train/, valid/ and test/ yourself.",
            )
        held_out = max(1, round(len(by_content) * _HOLD_OUT))
        for position, digest in enumerate(sorted(by_content)):
            split = "test" if position < held_out else "valid" if position < 2 * held_out else "train"
            pictures += [Picture(path, split, label, name) for path, name in by_content[digest]]
    return pictures


def layout_problems(data_set: DataSet) -> list[NotReadyError]:
    """Why no model can be trained on a data set, whatever its files contain; empty when one can."""
    if not data_set.pictures:
        return [NotReadyError(f"There are no pictures in {data_set.root}.", _LAYOUT)]
    problems = []
    labels: dict[str, set[str]] = {split: set() for split in SPLITS}
    for picture in data_set.pictures:
        labels[picture.split].add(picture.label)
    problems += [
        NotReadyError(f"{data_set.root} has no pictures in {split}/.", _LAYOUT)
        for split in ("train", "valid")
        if not labels[split]
    ]
    if len(labels["train"]) == 1:
        only = data_set.labels[0]
        problems.append(
            NotReadyError(f"{data_set.root} has one class only ({only!r}): nothing to tell apart.", _LAYOUT)
        )
    for split in ("valid", "test") if labels["train"] else ():
        unknown = sorted(labels[split] - labels["train"])
        if unknown:
            problems.append(
                NotReadyError(
                    f"{split}/ has classes that train/ lacks: {', '.join(map(repr, unknown[:5]))}"
                    + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
                    + ".",
                    "A model can only name what it was trained on: add them to train/ or remove them.",
                )
            )
    by_key: dict[str, Path] = {}
    for picture in data_set.pictures:  # class folders that differ in their Unicode form only
        other = by_key.setdefault(picture.key, picture.path)
        if other != picture.path:
            problems.append(
                NotReadyError(f"{other} and {picture.path} would be one picture, {picture.key}.", "Rename one of them.")
            )
    return problems
