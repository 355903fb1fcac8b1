"""Unpack a zip of pictures that anyone may have made: all of it, checked, or nothing.

The whole table of contents is judged before the first byte is written, then everything goes into a folder of another
name, which gets the right one at the end. So no name leads out of the folder, a few kilobytes cannot fill the disk, and
what is there under its name is complete.
"""

from __future__ import annotations

import re
import shutil
import stat
import threading
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cli.data.dataset import SPLIT_FOLDERS
from cli.data.download import Report
from cli.errors import NotReadyError
from cli.parallel import map_unordered, processors

_CHUNK = 1024 * 1024
_FILES_PER_TASK = 32
_LARGEST_SET = 200_000_000_000  # bytes unpacked; ImageNet has 150 GB
_MOST_FILES = 5_000_000
# Pictures are compressed already: a zip of them is hardly smaller than they are. Uncompressed bitmaps of drawings
# shrink 20 times; deflate's limit, which bombs use, is 1032.
_LARGEST_RATIO = 100
_DRIVE = re.compile("[A-Za-z]:")
_LONGEST_NAME = 255  # bytes, the limit of nearly all file systems
_MOST_FOLDERS = 50  # in each other
#: What `zipfile` and its decompressor raise for bytes that are no archive, or not that one any more.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError)


class ArchiveError(NotReadyError):
    """The archive is damaged or not what anybody should unpack."""


@dataclass(frozen=True)
class Contents:
    """What of an archive is unpacked.

    Attributes
    ----------
    members : list
        Each entry with its path below the data set's folder.
    left_out : int
        Entries that are hidden or the ``__MACOSX`` folder's.
    """

    members: list[tuple[zipfile.ZipInfo, PurePosixPath]]
    left_out: int

    @property
    def size(self) -> int:
        """Bytes when unpacked."""
        return sum(entry.file_size for entry, _ in self.members)


def unzip(archive: Path, directory: Path, *, report: Report, threads: int | None = None) -> Contents:
    """Unpack a data set into a folder that is not there yet, or empty.

    Folders that only wrap the data set are left out: ``dogImages/train/…`` becomes ``DIRECTORY/train/…``. Hidden files
    and ``__MACOSX`` are left out, too.

    Parameters
    ----------
    report
        Called with the bytes unpacked and to be unpacked.
    threads
        One per processor by default.

    Raises
    ------
    ArchiveError
        When it is no zip or a damaged one, when an entry has a name that leads elsewhere, is a link, is encrypted or
        there twice, or when it would become far larger than pictures do. Nothing is left of it.
    NotReadyError
        When the disk is too small or cannot be written.
    """
    unfinished = directory.with_name(f".{directory.name}.unpacking")
    try:
        if unfinished.exists():  # somebody was killed
            shutil.rmtree(unfinished)
        with zipfile.ZipFile(archive) as opened:
            contents = inspect(opened, archive)
            _check_room(contents, directory.parent)
            _extract(opened, contents, unfinished, report, threads or processors())
        unfinished.rename(directory)
    except _DAMAGED as error:
        raise ArchiveError(f"{archive} is no zip archive that can be read: {error}.") from error
    except OSError as error:
        raise NotReadyError(f"{archive} cannot be unpacked into {directory}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return contents


def inspect(archive: zipfile.ZipFile, path: Path) -> Contents:
    """Decide what of an archive is unpacked, and where to.

    Raises
    ------
    ArchiveError
        As for `unzip`.
    """
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if len(entries) > _MOST_FILES or total > _LARGEST_SET:
        raise ArchiveError(
            f"{path} has {len(entries):,} entries of {total / 1e9:,.1f} GB together; at most {_MOST_FILES:,} of "
            f"{_LARGEST_SET / 1e9:,.0f} GB are unpacked."
        )
    if total > _LARGEST_RATIO * path.stat().st_size:
        raise ArchiveError(
            f"{path} has {path.stat().st_size / 1e6:,.1f} MB and would become {total / 1e6:,.1f} MB: more than "
            f"{_LARGEST_RATIO} times as much, as no pictures do. It is not unpacked."
        )
    kept, seen = [], set()
    for entry in entries:
        name = _checked_name(entry, path)
        if any(part.startswith(".") or part == "__MACOSX" for part in name.parts):
            continue
        if entry.is_dir():
            continue
        key = unicodedata.normalize("NFC", name.as_posix())
        if key in seen:
            raise ArchiveError(f"{path} has two entries named {key!r}; it is not unpacked.")
        seen.add(key)
        kept.append((entry, name))
    for _, name in kept:
        for parent in name.parents:
            if unicodedata.normalize("NFC", parent.as_posix()) in seen:
                raise ArchiveError(f"{path} has {parent.as_posix()!r} both as a file and as a folder.")
    if not kept:
        raise ArchiveError(f"{path} holds no files.")
    wrapping = _wrapping_folders([name for _, name in kept])
    members = [(entry, PurePosixPath(*name.parts[wrapping:])) for entry, name in kept]
    left_out = sum(not entry.is_dir() for entry in entries) - len(members)
    return Contents(members, left_out)


def _checked_name(entry: zipfile.ZipInfo, path: Path) -> PurePosixPath:
    """The entry's path, if it can be nothing but a file or folder below the one that is unpacked into."""
    # Python cuts names at a NUL and turns Windows' separators; what the archive really says is in `orig_filename`.
    name = entry.orig_filename
    parts = name.removesuffix("/").split("/")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if name.startswith("/") or "\\" in name or _DRIVE.match(name) or ".." in parts:
        complaint = "leads out of the folder"
    elif any(not part or part == "." or len(part.encode(errors="replace")) > _LONGEST_NAME for part in parts):
        complaint = "is no file's name"
    elif len(parts) > _MOST_FOLDERS:
        complaint = f"lies in more than {_MOST_FOLDERS} folders"
    elif any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        complaint = "has control characters"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        complaint = "is a link or a device"
    elif entry.flag_bits & 0x1:
        complaint = "is encrypted"
    elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # `zipfile` decompresses the other kinds without a limit: a megabyte may become gigabytes of memory.
        complaint = "is compressed in another way than by deflate, as zip programs do"
    else:
        return PurePosixPath(*parts)
    raise ArchiveError(f"{path} has an entry that {complaint}: {name!r}. It is not unpacked.")


def _wrapping_folders(names: Sequence[PurePosixPath]) -> int:
    """How many folders are around the data set: those that hold one folder and nothing else."""
    depth = 0
    while True:
        here = {name.parts[depth] for name in names}
        holds_files = any(len(name.parts) == depth + 1 for name in names)
        if len(here) > 1 or holds_files or next(iter(here)).lower() in SPLIT_FOLDERS:
            return depth
        depth += 1


def _check_room(contents: Contents, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < contents.size:
        raise NotReadyError(
            f"{folder} has {free / 1e9:.1f} GB free; {contents.size / 1e9:.1f} GB are needed to unpack the pictures."
        )


def _extract(archive: zipfile.ZipFile, contents: Contents, folder: Path, report: Report, threads: int) -> None:
    folder.mkdir()
    for parent in {name.parent for _, name in contents.members}:
        (folder / parent).mkdir(parents=True, exist_ok=True)
    done, size, lock = 0, contents.size, threading.Lock()

    def extract(members: Sequence[tuple[zipfile.ZipInfo, PurePosixPath]]) -> None:
        nonlocal done
        for entry, name in members:
            # "x": on a file system that takes two names for one, the second is an error and overwrites nothing.
            with archive.open(entry) as source, (folder / name).open("xb") as target:
                shutil.copyfileobj(source, target, _CHUNK)
            with lock:
                done += entry.file_size
                report(done, size)

    members = contents.members
    tasks = [members[first : first + _FILES_PER_TASK] for first in range(0, len(members), _FILES_PER_TASK)]
    for _ in map_unordered(extract, tasks, threads=threads):
        pass
