"""Hold out a part of the training images by their content."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from .listing import DataSetError, reading, some

_SHARE = 0.1  # of a class that goes to each split


def hold_out(images: Iterable[tuple[str, Path]], splits: Sequence[str]) -> dict[Path, str]:
    """Give about a tenth of each class to each of some splits, by a hash of the content; return every image's split.

    Copies of an image come to the same split. An image whose hash is below a threshold is held out whatever else is in
    its class (as in Speech Commands, Warden 2018, arXiv:1804.03209). A class that has no such image for a split holds
    out the image with the next hash until it has; one image always stays in the training split.
    """
    by_class: dict[str, dict[bytes, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for label, path in images:
        by_class[label][content_hash(path)].append(path)
    placed: dict[Path, str] = {}
    few = [f"{label!r} has {len(copies)}" for label, copies in by_class.items() if len(copies) <= len(splits)]
    if few:
        raise DataSetError(
            f"{some(few)} different images; each class needs {len(splits) + 1} to hold out {' and '.join(splits)}. "
            "Add images, remove the folder, or lay out train/, valid/ and test/ yourself."
        )
    for copies in by_class.values():
        digests, start = sorted(copies), 0
        placed |= {path: "train" for paths in copies.values() for path in paths}
        for number, split in enumerate(splits, start=1):
            below = sum(int.from_bytes(digest[:4]) < number * _SHARE * 2**32 for digest in digests)
            end = max(start + 1, min(below, len(digests) - 1 - len(splits) + number))
            placed |= {path: split for digest in digests[start:end] for path in copies[digest]}
            start = end
    return placed


def content_hash(path: Path) -> bytes:
    """Return the SHA-256 of a file's bytes; a DataSetError names a file that cannot be read."""
    with reading(path):
        return hashlib.sha256(path.read_bytes()).digest()
