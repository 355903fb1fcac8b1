"""Folders and the objects in S3 that they are made of, or become."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

try:
    from backports import tarfile  # installed before Python 3.11.4 only, whose own tarfile cannot refuse unsafe members
except ModuleNotFoundError:
    import tarfile

from .job import JobError

#: Objects under way at once: a data set is thousands of small ones.
_CONNECTIONS = 16
SYNC_SECONDS = 15.0
#: A file is whole when nobody has written to it for so long.
SETTLED_SECONDS = 1.0

#: What a call to S3 may end in.
S3_ERRORS = (ClientError, BotoCoreError, Boto3Error)


def parse_url(url: str) -> tuple[str, str]:
    """Return bucket and key of an ``s3://`` address."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc:
        raise JobError(f"{url!r} is not an s3:// address.")
    return parts.netloc, parts.path.lstrip("/")


def download_folder(s3: Any, url: str, folder: Path) -> int:
    """Fetch every object below a prefix; returns how many there were. JobError for a key that leads elsewhere."""
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
            raise JobError(f"The object {key!r} would lie outside of the folder.")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, key, str(path))

    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return len(list(pool.map(fetch, keys)))


def download_archive(s3: Any, url: str, folder: Path) -> None:
    """Fetch a tar.gz and unpack it; JobError where it is not there, not an archive, or not safe."""
    bucket, key = parse_url(url)
    archive = folder.with_name(f"{folder.name}.tar.gz")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        s3.download_file(bucket, key, str(archive))
        with tarfile.open(archive) as tar:
            for member in tar:
                # Whether a link leads out of the folder cannot be told for certain; a sparse file fills the disk.
                if not (member.isfile() or member.isdir()) or member.issparse():
                    raise JobError(f"{url} holds {member.name!r}, which is neither a file nor a folder.")
                tar.extract(member, folder, filter="data")  # refuses names that lead out of the folder
    except (ClientError, tarfile.TarError, EOFError) as error:
        raise JobError(f"{url} cannot be unpacked: {error}") from error
    finally:
        archive.unlink(missing_ok=True)


def upload_archive(s3: Any, folder: Path, url: str) -> None:
    """Pack the contents of a folder into a tar.gz and upload it."""
    archive = folder.with_name(f"{folder.name}.tar.gz")
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name)
    s3.upload_file(str(archive), *parse_url(url))


@contextlib.contextmanager
def repeating(function: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call a function again and again, in a thread, for the duration of the block, whether it fails or not."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(seconds):
            with contextlib.suppress(OSError, *S3_ERRORS):
                function()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@contextlib.contextmanager
def synced(s3: Any, url: str, folder: Path) -> Iterator[int]:
    """Fetch the checkpoints of an earlier instance; yields how many. Upload new ones as they appear, and at the end."""
    bucket, prefix = parse_url(f"{url.rstrip('/')}/")
    count = download_folder(s3, url, folder)
    uploaded = dict(_stamps(folder))

    def upload(settled_seconds: float) -> None:
        """Upload changed files to which nobody has written for so long."""
        latest = time.time_ns() - settled_seconds * 1e9
        for path, stamp in _stamps(folder):
            if uploaded.get(path) != stamp and stamp[0] <= latest:
                s3.upload_file(str(path), bucket, prefix + path.relative_to(folder).as_posix())
                uploaded[path] = stamp

    try:
        with repeating(lambda: upload(SETTLED_SECONDS), SYNC_SECONDS):
            yield count
    finally:
        upload(0.0)


def _stamps(folder: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # replaced while we look
            if path.is_file():
                status = path.stat()
                yield path, (status.st_mtime_ns, status.st_ino)
