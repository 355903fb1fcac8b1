"""Checkpoints: a local folder and a location in S3, kept the same while a training job runs.

An object carries as metadata when its file was written: what a program printed before that, it will not print again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from emulator.sagemaker import artifacts

logger = logging.getLogger(__name__)

SYNC_SECONDS = 1.0
#: The names of that metadata: when, in seconds since the epoch, and by which of the jobs that share a location.
WRITTEN, WRITER = "written", "job"


class _Stamp(NamedTuple):
    """What tells two states of a path apart."""

    inode: int
    modified_ns: int
    size: int


class CheckpointSync:
    """Brings checkpoints of an earlier run to the folder of every instance and uploads new ones as they appear.

    A location without a slash at its end also stands for the siblings whose names begin alike, as on AWS.
    `before_upload` is called before a file is uploaded, which from then on may be gone on from; where it raises an
    OSError, the file is uploaded another time.
    """

    def __init__(
        self,
        s3: Any,
        location: str,
        directories: Sequence[Path],
        job: str,
        before_upload: Callable[[], None] = lambda: None,
    ) -> None:
        self._s3 = s3
        self._before_upload = before_upload
        self._bucket, self._prefix = artifacts.parse_s3_url(location)
        self._directories = directories
        self._job = job
        self._uploaded: dict[Path, _Stamp] = {}
        self._seen: dict[Path, _Stamp] = {}

    def download(self) -> float:
        """Fetch what is there; when the newest file that this job uploaded was written, in epoch seconds, or 0."""
        keys = artifacts.list_keys(self._s3, self._bucket, self._prefix)
        targets = [(key, artifacts.relative_key(key, self._prefix)) for key in keys]
        moments = [0.0]
        for directory in self._directories:
            fetched = artifacts.fetch_all(self._s3, self._bucket, targets, directory)
            moments += [float(metadata[WRITTEN]) for metadata in fetched if metadata.get(WRITER) == self._job]
        self._uploaded = self._stamps()
        return max(moments)

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
        """Upload changed files; with `settled_only` those that did not change since the last look or were replaced."""
        now = self._stamps()
        due = [path for path, stamp in now.items() if self._is_due(path, stamp, settled_only)]
        self._seen = now
        for path in due:
            name = next(path.relative_to(d).as_posix() for d in self._directories if path.is_relative_to(d))
            try:
                self._before_upload()
                with path.open("rb") as file:  # stays what it is when another one takes its place meanwhile
                    written = f"{os.fstat(file.fileno()).st_mtime_ns / 1e9:.6f}"
                    extra = {"Metadata": {WRITTEN: written, WRITER: self._job}}
                    key = f"{self._prefix.rstrip('/')}/{name}".lstrip("/")
                    self._s3.upload_fileobj(file, self._bucket, key, ExtraArgs=extra)
                self._uploaded[path] = now[path]
            except (ClientError, BotoCoreError, OSError, UnicodeError) as error:
                logger.warning("checkpoint %s is not uploaded for the time being: %s", name, error)

    def _is_due(self, path: Path, stamp: _Stamp, settled_only: bool) -> bool:
        before = self._seen.get(path)
        settled = before is not None and (before == stamp or before.inode != stamp.inode)
        return self._uploaded.get(path) != stamp and (settled or not settled_only)

    def _stamps(self) -> dict[Path, _Stamp]:
        stamps = {}
        for directory in self._directories:
            for path in sorted(directory.rglob("*")):
                with contextlib.suppress(FileNotFoundError):  # replaced while we look
                    if path.is_file():
                        status = path.stat()
                        stamps[path] = _Stamp(status.st_ino, status.st_mtime_ns, status.st_size)
        return stamps
