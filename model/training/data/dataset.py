"""A data set as training sees it: classes with numbers, splits, and a fingerprint of the content."""

from __future__ import annotations

import hashlib
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .image_folder import DataSetError, find

log = logging.getLogger(__name__)

_SORTING_PREFIX = re.compile(r"^\d{3}\.(?=.)")


@dataclass(frozen=True)
class Split:
    """The images of one split, sorted by class and then by file name; `targets` are the indices of their classes."""

    name: str
    paths: tuple[Path, ...]
    targets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def images(self) -> Iterator[tuple[Path, int]]:
        """Yield each path with its target."""
        return zip(self.paths, self.targets, strict=True)


@dataclass(frozen=True)
class DataSet:
    """What a model is trained on: the classes, sorted as the network's outputs, and the splits.

    There are always "train" and "valid", "test" when there is one.
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
        lacking = {name: set(range(len(self.labels))) - set(split.targets) for name, split in self.splits.items()}
        return {name: [self.labels[index] for index in sorted(which)] for name, which in lacking.items() if which}


@dataclass(frozen=True)
class Fingerprint:
    """The identity of a data set's content, wherever the folder lies.

    `digest` is "sha256:" and the hash over every image's split, class, name and bytes; `leaked` are the images of the
    other splits that are, byte for byte, in the training split too.
    """

    digest: str
    leaked: tuple[str, ...]


def discover(root: Path) -> DataSet:
    """Find the images of a data set (see `find`); raise DataSetError when no model can be trained on it."""
    folder = find(root)
    if problems := folder.problems():
        raise DataSetError(problems[0])
    if folder.ignored:
        log.warning("left out %d files that are no pictures, such as %s", len(folder.ignored), folder.ignored[0])
    target = {label: index for index, label in enumerate(folder.labels)}
    splits = {}
    for name in folder.counts:
        images = sorted((image for image in folder.images if image.split == name), key=lambda image: image.label)
        paths = tuple(image.path for image in images)
        splits[name] = Split(name, paths, tuple(target[image.label] for image in images))
    data_set = DataSet(root, tuple(target), splits)
    for name, absent in data_set.absent_classes.items():
        log.warning("the %s split has no pictures of %s", name, ", ".join(map(repr, absent)))
    return data_set


def display_labels(labels: Sequence[str]) -> list[str]:
    """Return the labels as people read them: "001.Carolina_dog" is shown as "Carolina dog".

    Names that would then be the same stay as they are.
    """
    shown = [_SORTING_PREFIX.sub("", label).replace("_", " ") for label in labels]
    times = Counter(shown)
    return [label if times[name] > 1 else name for label, name in zip(labels, shown, strict=True)]


def fingerprint(data_set: DataSet) -> Fingerprint:
    """Hash a data set's content; the time is that of reading it once."""
    whole = hashlib.sha256()
    seen_in_training: set[bytes] = set()
    leaked = []
    for name, split in data_set.splits.items():  # "train" comes first
        for path, target in split.images():
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
