"""The images of a folder-per-class data set, and why no model can be trained on it. The command line asks here, too."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

SPLITS = ("train", "valid", "test")
SPLIT_FOLDERS = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid",
                "test": "test"}  # fmt: skip
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"})
LAYOUT = (
    "Expected DIR/train/<class>/*.jpg with valid/ and test/ beside train/ (test/ is optional), or DIR/<class>/*.jpg, "
    f"which is split 80/10/10. Images end in {', '.join(sorted(IMAGE_SUFFIXES))}."
)
_HELD_OUT = 0.1  # share of a class that goes to the validation split, and again to the test split, when we split
_SHOWN = 5


class DataSetError(Exception):
    """The data set cannot be used. The message says what is wrong and what is allowed."""


@dataclass(frozen=True)
class ImageFile:
    """One image: its split, one of `SPLITS`; its class, in Unicode's form NFC; its path below the class folder."""

    path: Path
    split: str
    label: str
    name: str

    @property
    def key(self) -> str:
        """Return its place relative to the data set: `train/<class>/<file>`."""
        return f"{self.split}/{self.label}/{self.name}"


@dataclass(frozen=True)
class Split:
    """Images of one split of the data set at `root`, sorted by class and file, with the indices of their classes."""

    root: Path
    name: str
    paths: tuple[Path, ...]
    targets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int]) -> Split:
        """Return the split with these of its images only."""
        paths, targets = tuple(self.paths[index] for index in indices), tuple(self.targets[index] for index in indices)
        return replace(self, paths=paths, targets=targets)

    def without(self, unreadable: Mapping[str, str]) -> Split:
        """Return the split without some images, named as `place` names them."""
        return self.take([index for index, path in enumerate(self.paths) if self.place(path) not in unreadable])

    def place(self, path: Path) -> str:
        """Return an image's name for people and records: its path below the data set's folder."""
        return path.relative_to(self.root).as_posix()

    def refuse_unreadable(self, skipped: Mapping[str, str]) -> None:
        """Raise DataSetError when all images are among the unreadable ones, which are given with the reasons."""
        if len(skipped) == len(self):
            name, reason = next(iter(skipped.items()))
            raise DataSetError(f"no image of the {self.name} split is readable; the first: {name}: {reason}")


@dataclass(frozen=True)
class ImageFolder:
    """All images below a folder, usable or not, files that are no images by their names, and whether we split it."""

    root: Path
    images: list[ImageFile]
    ignored: list[Path] = field(default_factory=list)
    was_split: bool = False

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The classes in the order in which the model numbers them."""
        return tuple(sorted({image.label for image in self.images if image.split == "train"}))

    @property
    def counts(self) -> dict[str, int]:
        """The number of images of each split that has any."""
        found = Counter(image.split for image in self.images)
        return {split: found[split] for split in SPLITS if found[split]}

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The splits that have images, once there are no `problems`: "train", "valid" and perhaps "test"."""
        target = {label: index for index, label in enumerate(self.labels)}
        splits = {}
        for name in self.counts:
            images = sorted((image for image in self.images if image.split == name), key=lambda image: image.label)
            targets = tuple(target[image.label] for image in images)
            splits[name] = Split(self.root, name, tuple(image.path for image in images), targets)
        return splits

    @property
    def absent_classes(self) -> dict[str, list[str]]:
        """The labels of which a split has no file, for every split that lacks any."""
        lacking = {name: set(range(len(self.labels))) - set(split.targets) for name, split in self.splits.items()}
        return {name: [self.labels[index] for index in sorted(which)] for name, which in lacking.items() if which}

    def problems(self) -> list[str]:
        """Say why no model can be trained on it, whatever the files contain; empty when one can."""
        if not self.images:
            return [f"There are no images in {self.root}. {LAYOUT}"]
        classes = {split: {image.label for image in self.images if image.split == split} for split in SPLITS}
        found = [
            f"{self.root} has no images in {split}/. {LAYOUT}" for split in ("train", "valid") if not classes[split]
        ]
        if len(classes["train"]) == 1:
            found.append(f"{self.root} has one class only ({self.labels[0]!r}): nothing to tell apart. {LAYOUT}")
        for split in ("valid", "test") if classes["train"] else ():
            if unknown := sorted(classes[split] - classes["train"]):
                more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
                found.append(
                    f"{split}/ has classes that train/ lacks: {', '.join(map(repr, unknown[:_SHOWN]))}{more}. "
                    "A model can only name what it was trained on: add them to train/ or remove them."
                )
        for label in sorted(classes["train"]):
            if any("\ud800" <= letter <= "\udfff" for letter in label):  # bytes that are no text: no label either
                found.append(f"{label!r} is not a name in UTF-8; rename the folder.")
        places: dict[str, Path] = {}
        for image in self.images:
            other = places.setdefault(image.key, image.path)
            if other != image.path:  # class folders that differ in their Unicode form only
                found.append(f"{other} and {image.path} would be one image, {image.key}. Rename one of them.")
        return found


def find(root: Path) -> ImageFolder:
    """Find the images of a data set, usable or not; hidden files and folders are left out.

    `root` has `train/`, `valid/` (or `val/`, `validation/`) and `test/` that hold class folders, or class folders
    directly. Those are split by the hash of each image's bytes: the same images always land in the same split, and
    copies of an image never in two. Raises DataSetError when it cannot be listed or split.
    """
    if not root.is_dir():
        raise DataSetError(f"There is no data set at {root}. {LAYOUT}")
    ignored: list[Path] = []
    splits: dict[str, Path] = {}
    for path in _subfolders(root):
        split = SPLIT_FOLDERS.get(path.name.lower())
        if split is not None and splits.setdefault(split, path) != path:
            raise DataSetError(f"{splits[split]} and {path} are both the {split} split. Keep one of them.")
    if "train" not in splits:
        unsplit = [image for folder in _subfolders(root) for image in _images(folder, "", ignored)]
        return ImageFolder(root, _split(unsplit), ignored, was_split=True)
    images = [
        image
        for split, folder in splits.items()
        for label in _subfolders(folder)
        for image in _images(label, split, ignored)
    ]
    return ImageFolder(root, images, ignored)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path, split: str, ignored: list[Path]) -> Iterator[ImageFile]:
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            ignored.append(path)
            continue
        yield ImageFile(path, split, unicodedata.normalize("NFC", folder.name), relative.as_posix())


def _split(images: list[ImageFile]) -> list[ImageFile]:
    by_content: dict[str, dict[str, list[ImageFile]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        try:
            digest = hashlib.sha256(image.path.read_bytes()).hexdigest()
        except OSError as error:
            raise DataSetError(
                f"{image.path} cannot be read: {error.strerror or error}. Make it readable or remove it."
            ) from error
        by_content[image.label][digest].append(image)
    placed = []
    for label, copies in by_content.items():
        if len(copies) < len(SPLITS):
            raise DataSetError(
                f"The class {label!r} has {len(copies)} different images; splitting it into train, valid and test "
                f"takes at least {len(SPLITS)}. Add images, remove the folder, or lay out train/, valid/ and test/ "
                "yourself."
            )
        held_out = max(1, round(len(copies) * _HELD_OUT))
        for position, digest in enumerate(sorted(copies)):
            split = "test" if position < held_out else "valid" if position < 2 * held_out else "train"
            placed += [replace(image, split=split) for image in copies[digest]]
    return placed
