"""Features on disk: computed once, in shards that are either whole or not there.

A view of a split is a folder whose name is the hash of all that its features depend on, so nothing in the store is ever
out of date and any of it may be deleted. A damaged shard is computed again.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..whole_files import DamagedFileError, read_hashed, write_hashed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Features:
    """What a backbone makes of some images: values, float32 [N, D], and the indices of their classes, int64 [N].

    `skipped` has the images that could not be read, with the reasons.
    """

    values: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.targets)

    @classmethod
    def join(cls, parts: Sequence[Features]) -> Features:
        """Put parts of one split behind one another."""
        return cls(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.targets for part in parts]),
            {name: reason for part in parts for name, reason in part.skipped.items()},
        )

    def packed(self) -> bytes:
        """Return all of it as a file's content."""
        buffer = io.BytesIO()
        skipped = np.frombuffer(json.dumps(self.skipped).encode(), np.uint8)
        np.savez(buffer, values=self.values, targets=self.targets, skipped=skipped)
        return buffer.getvalue()

    @classmethod
    def unpacked(cls, content: bytes) -> Features:
        """Read what `packed` has made."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return cls(arrays["values"], arrays["targets"], json.loads(arrays["skipped"].tobytes()))


class FeatureStore:
    """Files by name, in a folder that several trainings may use at once; it is made with the first file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._full = False

    def put(self, name: str, content: bytes) -> None:
        """Keep a file, if the disk has room for it."""
        try:
            write_hashed(self._folder / name, content)
        except OSError as error:
            if not self._full:
                log.warning("features cannot be kept in %s, only in memory: %s", self._folder, error)
            self._full = True

    def get(self, name: str) -> bytes | None:
        """Return a file's content, or None when there is none or it is damaged."""
        try:
            return read_hashed(self._folder / name)
        except FileNotFoundError:
            return None
        except DamagedFileError as error:
            log.warning("%s; it will be computed again", error)
            return None
