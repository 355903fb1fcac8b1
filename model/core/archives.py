"""Archives whose bytes depend on nothing but what is in them, and archives that nobody vouches for."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Collection, Iterator
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
# Folders in each other.
_MAX_DEPTH = 100
# What may stand before a file, or behind the last one; tarfile reads all of it into memory.
_MAX_HEADER_BYTES = 256 * 1024


class _Stream(gzip.GzipFile):
    """Decompresses no more at a time than is due: tarfile believes every size that a header claims."""

    due = _MAX_HEADER_BYTES
    in_file = False

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= self.due:
            raise ArtifactError(f"{self.name} has a header that is too long, or too much after its last file.")
        try:
            data = super().read(size)
        except (EOFError, zlib.error, OSError) as error:
            raise _unreadable(self.name, error) from error
        if self.in_file and len(data) < size:
            raise _unreadable(self.name, "it ends within a file")
        self.due -= len(data)
        return data


def write_archive(folder: Path, file: BinaryIO, compression: int = _COMPRESSION) -> None:
    """Write a folder's files as a tar.gz that depends only on their names, contents and execute permissions.

    Python's bytecode caches are left out.
    """
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=compression, fileobj=file, mtime=0) as compressed,
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

    An archive that is missing, damaged or not safe to unpack raises ArtifactError.
    """
    names: set[str] = set()
    total = 0
    try:
        with _Stream(path) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                name = str(PurePosixPath(member.name))  # without the "./" that some programs put in front
                total += member.size
                complaint = _complaint(member, name, total, names)
                if complaint:
                    raise ArtifactError(f"{path} is refused at {name[:200]!r}, {complaint}.")
                names.add(name)
                if member.isfile():
                    stream.due, stream.in_file = member.size, True
                    content = tar.extractfile(member)
                    assert isinstance(content, BufferedReader)  # it is a regular file
                    with content:
                        yield name, member.size, content
                    stream.due, stream.in_file = _MAX_HEADER_BYTES, False
            # The checksum of it all is at the very end, which tarfile has no reason to read.
            while stream.read(64 * 1024):
                pass
    except FileNotFoundError:
        raise ArtifactError(f"There is no model artifact at {path}.") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, reason: object) -> ArtifactError:
    return ArtifactError(f"{path} is not a readable tar.gz: {reason}.")


def _complaint(member: tarfile.TarInfo, name: str, total: int, names: Collection[str]) -> str | None:
    """Say why an archive with this member is not to be unpacked, None if it may be."""
    parts = PurePosixPath(name).parts
    if not (member.isfile() or member.isdir()) or member.issparse():
        return "which is a link, a sparse or a special file; only files and folders are allowed"
    if member.size < 0 or total > MAX_BYTES or len(names) == MAX_FILES:
        return f"which claims {member.size:,} bytes; {MAX_FILES:,} files and {MAX_BYTES:,} bytes in all are allowed"
    if name.startswith("/") or ".." in parts or "\0" in name:
        return "a name that leads outside"
    if len(parts) > _MAX_DEPTH:
        return f"which lies deeper than {_MAX_DEPTH} folders"
    return "which is there twice" if name in names else None


def archive_digest(path: Path) -> str:
    """Return the digest that the folder unpacked from a tar.gz has (`artifact_digest.folder_digest`)."""
    return digest_of({name: hashlib.file_digest(file, "sha256").hexdigest() for name, _, file in read_archive(path)})
