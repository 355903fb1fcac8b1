"""Checkpoints: a local folder and a location in S3, kept the same while a training job runs."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from emulator.sagemaker import artifacts

logger = logging.getLogger(__name__)

SYNC_SECONDS = 1.0


class _Stamp(NamedTuple):
    """What tells two states of a path apart."""

    inode: int
    modified_ns: int
    size: int


class CheckpointSync:
    """Brings checkpoints of an earlier run to every instance and uploads new ones as they appear.

    Parameters
    ----------
    location
        ``CheckpointConfig.S3Uri``.
    directories
        The checkpoint folder of each instance.
    """

    def __init__(self, s3: Any, location: str, directories: Sequence[Path]) -> None:
        self._s3 = s3
        self._bucket, prefix = artifacts.parse_s3_url(location)
        self._prefix = prefix.rstrip("/") + "/" if prefix else ""
        self._directories = directories
        self._uploaded: dict[Path, _Stamp] = {}
        self._seen: dict[Path, _Stamp] = {}

    def download(self) -> None:
        """Fetch what is there.

        Raises
        ------
        ArtifactError
        """
        targets = [(key, key[len(self._prefix) :]) for key in artifacts.list_keys(self._s3, self._bucket, self._prefix)]
        for directory in self._directories:
            artifacts.fetch_all(self._s3, self._bucket, targets, directory)
        self._uploaded = self._stamps()

    @contextlib.contextmanager
    def syncing(self) -> Iterator[None]:
        """Upload in the background for the duration of the block, and at its end whatever is left."""
        stopped = threading.Event()

        def run() -> None:
            while not stopped.wait(SYNC_SECONDS):
                self._upload(settled_only=True)

        thread = threading.Thread(target=run, name=f"checkpoints {self._prefix}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
            self._upload(settled_only=False)

    def _upload(self, settled_only: bool) -> None:
        """Upload changed files; with `settled_only` those that nobody is writing to.

        That is so when a file did not change since the last look, or was replaced by another one as a whole, as
        programs do that save often.
        """
        now = self._stamps()
        for path, stamp in now.items():
            before = self._seen.get(path)
            settled = before is not None and (before == stamp or before.inode != stamp.inode)
            if self._uploaded.get(path) == stamp or (settled_only and not settled):
                continue
            name = next(path.relative_to(d).as_posix() for d in self._directories if path.is_relative_to(d))
            try:
                self._s3.upload_file(str(path), self._bucket, self._prefix + name)
                self._uploaded[path] = stamp
            except (ClientError, BotoCoreError, Boto3Error, OSError) as error:
                logger.warning("checkpoint %s was not uploaded: %s", name, error)
        self._seen = now

    def _stamps(self) -> dict[Path, _Stamp]:
        stamps = {}
        for directory in self._directories:
            for path in sorted(directory.rglob("*")):
                with contextlib.suppress(FileNotFoundError):  # replaced while we look
                    if path.is_file():
                        status = path.stat()
                        stamps[path] = _Stamp(status.st_ino, status.st_mtime_ns, status.st_size)
        return stamps
