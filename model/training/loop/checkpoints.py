"""Checkpoints: what a killed training needs in order to go on as if nothing had happened.

A checkpoint is one file that is there as a whole or not at all. It begins with a hash of its content, because the disk,
or the copy in S3 that SageMaker brings back, may be damaged all the same; then the one before it is used.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..distributed.group import Workers
from ..whole_files import read_hashed, remove_unfinished, write_hashed

log = logging.getLogger(__name__)

_SUFFIX = ".checkpoint"


class CheckpointError(Exception):
    """The checkpoints are of another training. The message is for a person."""


class Checkpoints:
    """The checkpoints of one training in a folder. All workers call every method; the main one reads and writes.

    `identity` says what the training is: going on from a checkpoint of another one is refused. One is written `every`
    so many seconds, and of the newest `keep` are left.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, object], *, workers: Workers, every: float, keep: int
    ) -> None:
        self._folder, self._identity, self._workers = folder, dict(identity), workers
        self._every, self._keep = every, keep
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for the next one; only the main worker's clock counts."""
        return self._workers.is_main and time.monotonic() - self._last >= self._every

    def load(self) -> dict[str, Any] | None:
        """Return the newest whole state, if any; raise CheckpointError when it is of another training."""
        state, problem = self._workers.broadcast(self._newest() if self._workers.is_main else (None, None))
        if problem is not None:
            raise CheckpointError(problem)
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state of tensors, numbers, texts, lists and dictionaries; on a full disk the training goes on."""
        if not self._workers.is_main:
            return
        self._last = time.monotonic()
        path = self._folder / f"epoch-{state['epoch']:05d}-step-{state['step']:07d}{_SUFFIX}"
        content = io.BytesIO()
        torch.save({"identity": self._identity, "state": dict(state)}, content)
        try:
            write_hashed(path, content.getbuffer())
        except OSError as error:
            paths = self._paths()
            log.warning(
                "no checkpoint could be written to %s (%s); the training goes on, and if it is killed, %s",
                self._folder,
                error.strerror or error,
                f"it begins again from {paths[0].stem}" if paths else "nothing is there to begin from",
            )
            return
        # One from further on is damaged, or the training would have begun there. It must not count as the newest.
        paths = self._paths()
        for other in paths[: paths.index(path)] + paths[paths.index(path) + self._keep :]:
            other.unlink(missing_ok=True)

    def _newest(self) -> tuple[dict[str, Any] | None, str | None]:
        """Return the newest whole state, or why it cannot be used."""
        remove_unfinished(self._folder)
        for path in self._paths():
            try:
                # weights_only: a checkpoint comes from a bucket, and must not be able to run code.
                saved = torch.load(io.BytesIO(read_hashed(path)), map_location="cpu", weights_only=True)
                found, state = saved["identity"], saved["state"]
            except Exception as error:  # torch.load raises a different class for every kind of damage
                log.warning("%s cannot be used (%s); trying the one before it", path, error)
                continue
            if found != self._identity:
                return None, _difference(self._folder, found, self._identity)
            log.info("going on from %s", path.name)
            return state, None
        return None, None

    def _paths(self) -> list[Path]:
        """Return the checkpoints, the newest first."""
        return sorted(self._folder.glob(f"epoch-*{_SUFFIX}"), reverse=True)


def _difference(folder: Path, found: Mapping[str, object], asked: Mapping[str, object]) -> str:
    names = [name for name in {**found, **asked} if found.get(name) != asked.get(name)]
    what = ", ".join(f"{name} {found.get(name)} instead of {asked.get(name)}" for name in names)
    return (
        f"the checkpoints in {folder} are of another training: {what}. Give the same arguments and data to go on "
        "with it, or another --checkpoint-dir (or an empty one) to begin anew."
    )
