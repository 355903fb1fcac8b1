"""Unpack a zip of images that anyone may have made."""

from __future__ import annotations

import os
import re
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from cli.errors import NotReadyError
from model.training.data.image_folder import SPLIT_FOLDERS

_LARGEST_RATIO = 100  # unpacked to packed; bitmaps of drawings have 20, deflate's limit, which bombs use, is 1032
_MOST_FOLDERS = 50  # in each other
_LONGEST_NAME = 255  # in bytes: what file systems take
# Not empty, "." or "..", without separators, control characters and half characters.
_PART = r"(?!\.{1,2}(/|$))[^/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]+"
_NAME = re.compile(rf"(?![A-Za-z]:){_PART}(/{_PART}){{0,{_MOST_FOLDERS}}}/?")  # no Windows drive
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError, RuntimeError)  # the last of encrypted entries


class ArchiveError(NotReadyError):
    """The archive is damaged or must not be unpacked."""


def unzip(archive: Path, folder: Path, *, report: Callable[[int, int], None]) -> str:
    """Unpack a data set into an empty folder; return what was unpacked, in words.

    The table of contents is judged before the first byte is written. Hidden files, ``__MACOSX`` and folders that only
    wrap the data set are left out. An ArchiveError says that it is no zip, damaged or unsafe.
    """
    done = 0
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(opened, archive)
            size = sum(entry.file_size for _, entry in members)
            if (free := shutil.disk_usage(folder).free) < size:
                have = f"{archive.parent} has {free / 1e9:.1f} GB free"
                raise NotReadyError(f"{have}; {size / 1e9:.1f} GB are needed to unpack {archive}.", "Make room.")
            for name, entry in members:
                target = folder / name
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    file = target.open("xb")  # overwrites nothing, whatever names the file system takes for one
                except (FileExistsError, NotADirectoryError) as error:
                    raise ArchiveError(f"{archive} has two entries for {str(name)!r}. It is not unpacked.") from error
                with file, opened.open(entry) as source:
                    shutil.copyfileobj(source, file)  # never more than entry.file_size
                done += entry.file_size
                report(done, size)
    except _DAMAGED as error:
        raise ArchiveError(f"{archive} is no zip archive that can be read: {error}.") from error
    return f"{len(members)} files, {size / 1e6:,.0f} MB"


def _members(archive: zipfile.ZipFile, path: Path) -> list[tuple[PurePosixPath, zipfile.ZipInfo]]:
    """Decide which entries are unpacked, and where below the data set's folder."""
    total, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
    if total > _LARGEST_RATIO * size:
        raise ArchiveError(
            f"{path} has {size / 1e6:,.1f} MB and would become {total / 1e6:,.1f} MB: more than {_LARGEST_RATIO} times "
            "as much, as no images do. It is not unpacked."
        )
    kept = []
    for entry in archive.infolist():
        name = _checked_name(entry, path)
        if not entry.is_dir() and not any(part.startswith(".") or part == "__MACOSX" for part in name.parts):
            kept.append((name, entry))
    if not kept:
        raise ArchiveError(f"{path} holds no files.")
    around = PurePosixPath(os.path.commonpath([name.parent for name, _ in kept])).parts
    depth = next((index for index, folder in enumerate(around) if folder.lower() in SPLIT_FOLDERS), len(around))
    return [(PurePosixPath(*name.parts[depth:]), entry) for name, entry in kept]


def _checked_name(entry: zipfile.ZipInfo, path: Path) -> PurePosixPath:
    """Return the entry's path in Unicode's form NFC, if it can only be one below the folder that is unpacked into."""
    # Python cuts names at a NUL and turns Windows' separators; what the archive really says is in `orig_filename`.
    name = unicodedata.normalize("NFC", entry.orig_filename)
    if not _NAME.fullmatch(name):
        complaint = f"whose name is no path of at most {_MOST_FOLDERS} folders below another"
    elif any(len(part.encode()) > _LONGEST_NAME for part in name.split("/")):
        complaint = f"whose name has more than {_LONGEST_NAME} bytes, which file systems do not take"
    elif stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        complaint = "that is a link or a device"
    elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # `zipfile` decompresses the other kinds without a limit: a megabyte may become gigabytes of memory.
        complaint = "that is compressed in another way than by deflate, as zip programs do"
    else:
        return PurePosixPath(name)
    raise ArchiveError(f"{path} has an entry {complaint}: {name!r}. It is not unpacked.")
