"""Folders and the objects in S3 that they are made of, or become."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

try:
    from backports import tarfile  # installed before Python 3.11.4 only, whose own tarfile cannot refuse unsafe members
except ModuleNotFoundError:
    import tarfile

#: Objects under way at once: a data set is thousands of small ones.
_CONNECTIONS = 16
SYNC_SECONDS = 15.0

#: What a call to S3 may end in.
S3_ERRORS = (ClientError, BotoCoreError, Boto3Error)


class MissingInputError(Exception):
    """An input is not where the job says; the message names it."""


def parse_url(url: str) -> tuple[str, str]:
    """Bucket and key of an ``s3://`` address."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc:
        raise MissingInputError(f"{url!r} is not an s3:// address.")
    return parts.netloc, parts.path.lstrip("/")


def download_folder(s3: Any, url: str, folder: Path) -> int:
    """Fetch every object below a prefix; returns how many there were.

    Raises
    ------
    MissingInputError
        A key would lie outside of the folder.
    """
    bucket, prefix = parse_url(url)
    prefix = prefix.rstrip("/") + "/"
    keys = [
        item["Key"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for item in page.get("Contents", [])
        if not item["Key"].endswith("/")
    ]

    def fetch(key: str) -> None:
        name = key.removeprefix(prefix)
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise MissingInputError(f"The object {key!r} would lie outside of the folder.")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, key, str(path))

    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        for _ in pool.map(fetch, keys):
            pass
    return len(keys)


def download_archive(s3: Any, url: str, folder: Path) -> None:
    """Fetch a tar.gz and unpack it.

    Raises
    ------
    MissingInputError
        It is not there, or not an archive.
    """
    bucket, key = parse_url(url)
    archive = folder.with_name(f"{folder.name}.tar.gz")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        s3.download_file(bucket, key, str(archive))
        with tarfile.open(archive) as tar:
            for member in tar:
                # Whether a link leads out of the folder cannot be told for certain; a sparse file fills the disk.
                if not (member.isfile() or member.isdir()) or member.issparse():
                    raise MissingInputError(f"{url} holds {member.name!r}, which is neither a file nor a folder.")
                tar.extract(member, folder, filter="data")  # refuses names that lead out of the folder
    except (ClientError, tarfile.TarError, EOFError) as error:
        raise MissingInputError(f"{url} cannot be unpacked: {error}") from error
    finally:
        archive.unlink(missing_ok=True)


def upload_archive(s3: Any, folder: Path, url: str) -> None:
    """Pack the contents of a folder into a tar.gz and upload it."""
    bucket, key = parse_url(url)
    archive = folder.with_name(f"{folder.name}.tar.gz")
    try:
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, arcname=path.name)
        s3.upload_file(str(archive), bucket, key)
    finally:
        archive.unlink(missing_ok=True)


class _Stamp(NamedTuple):
    """What tells two states of a file apart."""

    inode: int
    modified_ns: int
    size: int


class CheckpointSync:
    """Brings the checkpoints of an earlier instance, and uploads new ones as they appear.

    Parameters
    ----------
    url
        The prefix that stands for the folder.
    """

    def __init__(self, s3: Any, url: str, folder: Path) -> None:
        self._s3 = s3
        self._url = url
        self._bucket, self._prefix = parse_url(url)
        self._folder = folder
        self._uploaded: dict[Path, _Stamp] = {}
        self._seen: dict[Path, _Stamp] = {}

    def download(self) -> int:
        """Fetch what is there; returns the number of files."""
        count = download_folder(self._s3, self._url, self._folder)
        self._uploaded = self._stamps()
        return count

    @contextlib.contextmanager
    def syncing(self) -> Iterator[None]:
        """Upload in the background for the duration of the block, and at its end whatever is left."""
        stopped = threading.Event()

        def run() -> None:
            while not stopped.wait(SYNC_SECONDS):
                with contextlib.suppress(OSError, *S3_ERRORS):  # the next round tries again
                    self._upload(settled_only=True)

        thread = threading.Thread(target=run, name="checkpoints", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
            self._upload(settled_only=False)

    def _upload(self, settled_only: bool) -> None:
        """Upload changed files; with `settled_only` those that nobody is writing to.

        That is so when a file has not changed since the last look, or was replaced as a whole.
        """
        now = self._stamps()
        for path, stamp in now.items():
            before = self._seen.get(path)
            settled = before is not None and (before == stamp or before.inode != stamp.inode)
            if self._uploaded.get(path) == stamp or (settled_only and not settled):
                continue
            name = path.relative_to(self._folder).as_posix()
            self._s3.upload_file(str(path), self._bucket, f"{self._prefix.rstrip('/')}/{name}")
            self._uploaded[path] = stamp
        self._seen = now

    def _stamps(self) -> dict[Path, _Stamp]:
        stamps = {}
        for path in sorted(self._folder.rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # replaced while we look
                if path.is_file():
                    status = path.stat()
                    stamps[path] = _Stamp(status.st_ino, status.st_mtime_ns, status.st_size)
        return stamps
