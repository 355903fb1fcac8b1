"""Files that are there as a whole or not at all, whenever the program is killed and whether or not the disk is full."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

UNFINISHED = ".unfinished"


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file under another name, force it to the disk and rename it; folders are made as needed.

    The other name is always the same for the same file (`.<name>.unfinished`), so what a kill leaves behind is gone
    when the file is written again.

    Raises
    ------
    OSError
        Nothing is left of the file then, and one that was there before is untouched.
    """
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def _sync(folder: Path) -> None:
    """Force a rename to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
