"""The images of a folder-per-class data set, and why no model can be trained on it. The command line asks here, too."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from .held_out import hold_out
from .listing import IMAGE_SUFFIXES, SPLITS, UNFIT, DataSetError, list_files, some, split_of

LAYOUT = (
    "Expected DIR/train/<class>/*.jpg with valid/ and test/ beside train/, or DIR/<class>/*.jpg. Without valid/, a "
    f"tenth of the training images is held out. Images end in {', '.join(sorted(IMAGE_SUFFIXES))}."
)
log = logging.getLogger(__name__)


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
    labels: tuple[str, ...] = ()  # of all classes

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
        """Raise DataSetError when the images that are unreadable, given with the reasons, leave a class without any.

        Only the training split needs every class; of the others one image must be readable.
        """
        lost = sorted(set(self.targets) - set(self.without(skipped).targets)) if skipped else []
        if not lost:
            return
        what = f"the {self.name} split"
        if len(skipped) < len(self):
            what = f"{some([repr(self.labels[target]) for target in lost])} in {what}"
            if self.name != "train":
                log.warning("no image of %s is readable", what)
                return
        first = self.place(self.paths[self.targets.index(lost[0])])
        raise DataSetError(
            f"no image of {what} is readable; the first: {some([first])}: {skipped[first]} "
            "Add images that are readable, or remove the class."
        )


@dataclass(frozen=True)
class ImageFolder:
    """All images below a folder, usable or not, and what else is there: every file is in `images` or `left_out`."""

    root: Path
    images: list[ImageFile]
    left_out: dict[str, str] = field(default_factory=dict)  # the reasons, by place; that of a folder ends in "/"
    empty: list[str] = field(default_factory=list)  # class folders of the training split without images
    held_out: tuple[str, ...] = ()  # the splits that we took from the training images

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
            splits[name] = Split(self.root, name, tuple(image.path for image in images), targets, self.labels)
        return splits

    @property
    def absent_classes(self) -> dict[str, list[str]]:
        """The labels of which a split has no file, for every split that lacks any."""
        lacking = {name: set(range(len(self.labels))) - set(split.targets) for name, split in self.splits.items()}
        return {name: [self.labels[index] for index in sorted(which)] for name, which in lacking.items() if which}

    def problems(self) -> list[str]:
        """Say why no model can be trained on it, whatever the files contain; empty when one can."""
        if not self.images:
            return [f"There are no images in class folders of {self.root}. {LAYOUT}"]
        classes = {split: {image.label for image in self.images if image.split == split} for split in SPLITS}
        found = [
            f"{self.root} has no images in {split}/. {LAYOUT}" for split in ("train", "valid") if not classes[split]
        ]
        if self.empty:
            found.append(
                f"There are no images in {some(sorted(self.empty))}: a class would be lost. Add some or remove it."
            )
        if len(classes["train"]) == 1:
            found.append(f"{self.root} has one class only ({self.labels[0]!r}): nothing to tell apart. {LAYOUT}")
        for split in ("valid", "test") if classes["train"] else ():
            if unknown := sorted(classes[split] - classes["train"]):
                found.append(
                    f"{split}/ has classes that train/ lacks: {some([repr(label) for label in unknown])}. "
                    "A model can only name what it was trained on: add them to train/ or remove them."
                )
        for label in sorted(classes["train"]):
            if UNFIT.search(label):
                found.append(f"{label!r} is not a name in UTF-8 without control characters; rename the folder.")
        places: dict[str, Path] = {}
        for image in self.images:
            other = places.setdefault(image.key, image.path)
            if other != image.path:  # class folders that differ in their Unicode form only
                found.append(f"{other} and {image.path} would be one image, {image.key}. Rename one of them.")
        return found

    def notes(self) -> list[str]:
        """Say which splits were held out, and what was left out and why."""
        places = defaultdict(list)
        for place, reason in sorted(self.left_out.items()):
            places[reason].append(place)
        left_out = [f"{len(names)} left out, {reason}: {some(names)}" for reason, names in places.items()]
        if not self.held_out:
            return left_out
        missing = " and no ".join(f"{split}/" for split in self.held_out)
        return [f"There is no {missing}: about a tenth of each class is held out by the hash of its images.", *left_out]


def find(root: Path) -> ImageFolder:
    """Find the images of a data set, usable or not.

    `root` has `train/`, `valid/` and `test/` that hold class folders (see `split_of` for other names), or class folders
    directly; images in folders below a class folder belong to the class. Where there is no `valid/`, it is held out
    of the training images, and so is `test/` where neither is there. Raises DataSetError when it cannot be listed or
    split, or when its folders can be read in two ways.
    """
    if not root.is_dir():
        raise DataSetError(f"There is no data set at {root}. {LAYOUT}")
    listing = list_files(root)
    found: dict[PurePosixPath, Path] = {}
    for path in listing.files:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found[PurePosixPath(path.relative_to(root))] = path
        else:
            listing.leave_out(path, "no image by its name")
    folders = [folder.relative_to(root).parts for folder in listing.folders]
    splits = _split_folders(root, found, [folder[0] for folder in folders if len(folder) == 1])
    depth = 1 if splits else 0  # of the class folders
    images = []
    for relative, path in found.items():
        split = splits.get(relative.parts[0]) if splits else "train"
        if split is None or len(relative.parts) < depth + 2:
            listing.leave_out(path, "an image in no class folder")
            continue
        label = unicodedata.normalize("NFC", relative.parts[depth])
        images.append(ImageFile(path, split, label, "/".join(relative.parts[depth + 1 :])))
    labels = {image.label for image in images if image.split == "train"}
    empty = [
        "/".join(folder) + "/"
        for folder in folders
        if len(folder) == depth + 1 and (not splits or splits.get(folder[0]) == "train")
        if unicodedata.normalize("NFC", folder[-1]) not in labels
    ]
    given = splits.values()
    missing = () if "valid" in given else ("valid",) if "test" in given else ("valid", "test")
    if missing:
        placed = hold_out(((image.label, image.path) for image in images if image.split == "train"), missing)
        images = [replace(image, split=placed.get(image.path, image.split)) for image in images]
    return ImageFolder(root, images, listing.left_out, empty, missing)


def _split_folders(root: Path, images: Iterable[PurePosixPath], folders: Sequence[str]) -> dict[str, str]:
    """Return the splits of the folders that are some; none where each folder is a class. Their content decides."""
    splits = {folder: split for folder in folders if (split := split_of(folder))}
    parents = {image.parent for image in images} - {PurePosixPath()}
    below: dict[str, set[str | None]] = defaultdict(set)  # what the folders in each folder are by name
    for parent in parents:
        below[parent.parts[0]] |= {split_of(name) for name in parent.parts[1:2]}
    inside = [folder for folder, names in below.items() if len(names - {None}) > 1 and not (splits and None in names)]
    if len(inside) > 1:
        raise DataSetError(f"In {some(sorted(inside))} of {root} are splits: they belong around the classes. {LAYOUT}")
    for folder in inside or (below if len(below) == 1 and not splits else ()):
        if inside or PurePosixPath(folder) not in parents:
            raise DataSetError(f"The data set is in {root / folder}: name that folder. {LAYOUT}")
    with_classes = {folder for folder in splits if below.get(folder)}
    beside = sorted(below.keys() - splits.keys())
    if len(splits) == 1 and beside and not with_classes:
        return {}  # "bus", "car" and "train"
    if splits and parents and not with_classes:
        raise DataSetError(f"There are images, but no class folders, in {some(sorted(splits))} of {root}. {LAYOUT}")
    if len(splits) == 1 and beside:
        raise DataSetError(
            f"{root} may be read in two ways: {next(iter(splits))} has folders with images as a split has, but there "
            f"are images in {some(beside)} beside it, too. Move those into it or elsewhere. {LAYOUT}"
        )
    if splits and "train" not in splits.values():
        raise DataSetError(f"{root} has {some(sorted(splits))}, but no train/. {LAYOUT}")
    for folder, split in splits.items():
        if other := [name for name in splits if splits[name] == split and name != folder]:
            raise DataSetError(f"{root / folder} and {root / other[0]} are both the {split} split. Keep one of them.")
    return splits
