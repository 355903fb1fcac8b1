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

from .image_folder import DataSetError, ImageFolder, find

log = logging.getLogger(__name__)

_SORTING_PREFIX = re.compile(r"^\d{3}\.(?=.)")


@dataclass(frozen=True)
class Fingerprint:
    """The identity of a data set's content, wherever the folder lies."""

    digest: str  # "sha256:" and the hash over every image's split, class, name and bytes
    leaked: tuple[str, ...]  # the images of the other splits that are, byte for byte, in the training split too


def discover(root: Path) -> ImageFolder:
    """Find the images of a data set (see `find`); raise DataSetError when no model can be trained on it."""
    folder = find(root)
    if problems := folder.problems():
        raise DataSetError(problems[0])
    if folder.ignored:
        log.warning("left out %d files that are no images, such as %s", len(folder.ignored), folder.ignored[0])
    for name, absent in folder.absent_classes.items():
        log.warning("the %s split has no images of %s", name, ", ".join(map(repr, absent)))
    return folder


def display_labels(labels: Sequence[str]) -> list[str]:
    """Return the labels as people read them, "001.Carolina_dog" as "Carolina dog", unless two would be the same."""
    shown = [_SORTING_PREFIX.sub("", label).replace("_", " ") for label in labels]
    times = Counter(shown)
    return [label if times[name] > 1 else name for label, name in zip(labels, shown, strict=True)]


def fingerprint(data_set: ImageFolder) -> Fingerprint:
    """Hash a data set's content; the time is that of reading it once."""
    whole = hashlib.sha256()
    seen_in_training: set[bytes] = set()
    leaked = []
    for name, split in data_set.splits.items():  # "train" comes first
        for path, target in zip(split.paths, split.targets, strict=True):
            content = hashlib.sha256(path.read_bytes()).digest()
            # A zero byte cannot be part of a name, so no two different sets give the same stream.
            place = "\0".join((name, data_set.labels[target], unicodedata.normalize("NFC", path.name), ""))
            whole.update(place.encode(errors="surrogateescape") + content)
            if name == "train":
                seen_in_training.add(content)
            elif content in seen_in_training:
                leaked.append(split.place(path))
    if leaked:
        log.warning(
            "%d images are in the training split, too, which makes the accuracy look better than it is, such as %s",
            len(leaked),
            leaked[0],
        )
    return Fingerprint(f"sha256:{whole.hexdigest()}", tuple(leaked))
