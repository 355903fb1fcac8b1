"""Atomic writes: a file is there as a whole or not at all, whenever the program is killed and the disk is full."""

from __future__ import annotations

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

    Several processes may write the same file at once; the last one to finish wins. After an OSError nothing is left of
    the file, and one that was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_UNFINISHED}")
    try:
        with unfinished.open("xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
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
    """Remove what writers that were killed have left in a folder, which must belong to this program alone."""
    for path in folder.glob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)
