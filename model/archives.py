"""Archives whose bytes depend on nothing but what is in them."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path
from typing import BinaryIO

# Trained weights are nearly incompressible: the highest level takes five times as long for 1% less.
_COMPRESSION = 1


def write_archive(folder: Path, file: BinaryIO) -> None:
    """Write a folder's files as a tar.gz that depends only on their names, contents and execute permissions.

    Python's bytecode caches are left out, because they depend on who has run what.
    """
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=_COMPRESSION, fileobj=file, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if not path.is_file() or "__pycache__" in relative.parts:
                continue
            member = tarfile.TarInfo(relative.as_posix())
            member.size = path.stat().st_size
            member.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as content:
                tar.addfile(member, content)
