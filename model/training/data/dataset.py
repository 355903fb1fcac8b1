"""A data set as training sees it: one that a model can be trained on, with a fingerprint of its content."""

from __future__ import annotations

import hashlib
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .held_out import content_hash
from .image_folder import ImageFolder, find
from .listing import DataSetError, some

log = logging.getLogger(__name__)

_SORTING_PREFIX = re.compile(r"^\d{3}\.(?=.)")
_COPIES = {
    "also_in_training": "in the training split, too, which makes the accuracy look better than it is",
    "also_in_valid": "in the validation split, too, which makes the test's accuracy look better than it is",
    "in_two_classes": "in another class, too: at most one of them is right",
}


@dataclass(frozen=True)
class Fingerprint:
    """The identity of a data set's content, wherever the folder lies."""

    digest: str  # "sha256:" and the hash over every image's split, class, name and bytes
    copies: dict[str, list[str]]  # the places of images that are, byte for byte, elsewhere, too; see `_COPIES`


def discover(root: Path) -> ImageFolder:
    """Find the images of a data set (see `find`); raise DataSetError when no model can be trained on it."""
    folder = find(root)
    if problems := folder.problems():
        raise DataSetError(problems[0])
    for note in folder.notes():
        log.warning("%s", note)
    for name, absent in folder.absent_classes.items():
        log.warning("the %s split has no images of %s", name, some([*map(repr, absent)]))
    return folder


def display_labels(labels: Sequence[str]) -> list[str]:
    """Return the labels as people read them, "001.Carolina_dog" as "Carolina dog", unless two would be the same."""
    shown = [_SORTING_PREFIX.sub("", label).replace("_", " ") for label in labels]
    times = Counter(shown)
    return [label if times[name] > 1 else name for label, name in zip(labels, shown, strict=True)]


def fingerprint(data_set: ImageFolder) -> Fingerprint:
    """Hash a data set's content; the time is that of reading it once."""
    whole = hashlib.sha256()
    first: dict[bytes, tuple[str, int]] = {}  # of each content, the split and class that it is met in first
    copies: dict[str, list[str]] = {kind: [] for kind in _COPIES}
    for name, split in data_set.splits.items():  # in the order of `SPLITS`
        for path, target in zip(split.paths, split.targets, strict=True):
            content = content_hash(path)
            # A zero byte cannot be part of a name, so no two different sets give the same stream.
            place = "\0".join((name, data_set.labels[target], unicodedata.normalize("NFC", path.name), ""))
            whole.update(place.encode(errors="surrogateescape") + content)
            other, label = first.setdefault(content, (name, target))
            if other != name:
                copies["also_in_training" if other == "train" else "also_in_valid"].append(split.place(path))
            if label != target:
                copies["in_two_classes"].append(split.place(path))
    for kind, advice in _COPIES.items():
        if copies[kind]:
            log.warning("%d images are %s: %s", len(copies[kind]), advice, some(copies[kind]))
    return Fingerprint(f"sha256:{whole.hexdigest()}", copies)
