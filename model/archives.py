"""Archives whose bytes depend on nothing but what is in them, and archives that nobody vouches for."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from .artifact import ArtifactError
from .artifact_digest import digest_of

# Trained weights are nearly incompressible: the highest level takes five times as long for 1% less.
_COMPRESSION = 1
# More than any model that one endpoint instance could load; an archive that holds more is a bomb.
MAX_BYTES = 20 * 1024**3
# A model artifact has thirty files, a training job's output a few hundred.
MAX_FILES = 10_000
# What may stand before a file, or behind the last one; tarfile reads all of it into memory.
_MAX_HEADER_BYTES = 1024 * 1024


class _Stream(gzip.GzipFile):
    """Decompresses no more at a time than is due: tarfile believes every size that a header claims."""

    due = 0

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= self.due:
            raise tarfile.ReadError("it has a header that is too long, or too much after its last file")
        data = super().read(size)
        self.due -= len(data)
        return data


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


def read_archive(path: Path) -> Iterator[tuple[str, int, BufferedReader]]:
    """Give each file of a tar.gz: its relative name, its size in bytes, and its content, to be read before the next.

    Raises
    ------
    ArtifactError
        When there is no such archive, or it is damaged, or larger than `MAX_BYTES` or `MAX_FILES`, or holds a link, a
        special or sparse file, a name twice, or one that leads outside.
    """
    names: set[str] = set()
    total = 0
    try:
        with _Stream(path) as stream:
            stream.due = _MAX_HEADER_BYTES
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for member in tar:
                    name = str(PurePosixPath(member.name))  # without the "./" that some programs put in front
                    total += member.size
                    if member.size < 0 or total > MAX_BYTES or len(names) == MAX_FILES:
                        raise ArtifactError(
                            f"{path} is refused at {name!r}, which claims to have {member.size:,} bytes: "
                            f"{MAX_FILES:,} files and {MAX_BYTES:,} bytes in all are allowed."
                        )
                    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name:
                        raise ArtifactError(f"{path} is refused: the name {name!r} in it leads outside.")
                    if name in names:
                        raise ArtifactError(f"{path} is refused: it holds {name!r} twice.")
                    names.add(name)
                    if member.isfile() and not member.issparse():
                        stream.due = member.size
                        content = tar.extractfile(member)
                        assert isinstance(content, BufferedReader)  # it is a regular file
                        with content:
                            yield name, member.size, content
                    elif not member.isdir():
                        raise ArtifactError(f"{path} is refused: {name!r} in it is a link, a sparse or a special file.")
                    stream.due = _MAX_HEADER_BYTES
            # The checksum of it all is at the very end, which tarfile has no reason to read.
            while stream.read(64 * 1024):
                pass
    except FileNotFoundError:
        raise ArtifactError(f"There is no model artifact at {path}.") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError, RecursionError, ValueError) as error:
        raise ArtifactError(f"{path} is not a readable tar.gz: {error}.") from error


def archive_digest(path: Path) -> str:
    """Return the digest that the folder unpacked from a tar.gz has (`artifact_digest.folder_digest`).

    Raises
    ------
    ArtifactError, DigestError
        If the archive is not one that can be unpacked safely, or there is none.
    """
    return digest_of({name: hashlib.file_digest(file, "sha256").hexdigest() for name, _, file in read_archive(path)})
