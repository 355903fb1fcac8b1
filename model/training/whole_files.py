"""Atomic writes: a file is there as a whole or not at all, whenever the program is killed and the disk is full."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from pathlib import Path

_UNFINISHED = ".unfinished"
_DIGEST_BYTES = hashlib.sha256().digest_size


class DamagedFileError(Exception):
    """A file is not as it was written. The message names it."""


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file under another name, force it to the disk and rename it; folders are made as needed.

    The other name (`.<name>.<something>.unfinished`) is nobody else's, so several processes may write the same file at
    once; the last one to finish wins. What a kill leaves behind is gone when a file of that folder is written again.
    After an OSError nothing is left of the file, and one that was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path.parent)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_UNFINISHED}")
    with unfinished.open("xb") as file:
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            if isinstance(error, FileNotFoundError):  # another writer took it for a leftover before it was locked
                write_whole(path, *parts)
                return
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename
    finally:
        os.close(folder)


def write_hashed(path: Path, content: bytes | memoryview) -> None:
    """Write a file as a whole, its content behind the content's SHA-256; see `write_whole`."""
    write_whole(path, hashlib.sha256(content).digest(), content)


def read_hashed(path: Path) -> bytes:
    """Return what `write_hashed` has written; raise DamagedFileError when a disk or a copy has changed it."""
    stored = path.read_bytes()
    digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise DamagedFileError(f"{path} is damaged: its content does not match its hash")
    return content


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder. Those that still write keep theirs."""
    for path in folder.glob(f".*{_UNFINISHED}"):
        # Where the file system has no locks, nobody can tell whether a writer is still there, and the file stays.
        with contextlib.suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
