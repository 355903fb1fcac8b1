"""Unpack a zip of images that anyone may have made."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path, PurePosixPath

from cli.errors import NotReadyError
from model.training.data.listing import UNFIT, is_system_name, some, split_of

_LARGEST_RATIO = 100  # unpacked to packed; bitmaps of drawings have 20, deflate's limit, which bombs use, is 1032
_MOST_FOLDERS = 50  # in each other
_LONGEST_NAME = 255  # in bytes: what file systems take
_DRIVE = re.compile("[A-Za-z]:")  # of Windows
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError, RuntimeError)  # the last of encrypted entries


class ArchiveError(NotReadyError):
    """The archive is damaged or must not be unpacked."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "Pack it anew; or, if you trust it, unpack it yourself and name the folder.")


def unzip(archive: Path, folder: Path, *, report: Callable[[int, int], None]) -> str:
    """Unpack a data set into an empty folder; return what was unpacked, in words.

    The table of contents is judged before the first byte is written. Hidden files, those of systems (``__MACOSX``) and
    folders that only wrap the data set are left out; empty ones are not. An ArchiveError says that it is no zip,
    damaged or unsafe.
    """
    done = 0
    try:
        with zipfile.ZipFile(archive) as opened:
            folders, members, left_out = _members(opened, archive)
            size = sum(entry.file_size for _, entry in members)
            if (free := shutil.disk_usage(folder).free) < size:
                have = f"{archive.parent} has {free / 1e9:.1f} GB free"
                raise NotReadyError(f"{have}; {size / 1e9:.1f} GB are needed to unpack {archive}.", "Make room.")
            for name in folders:
                (folder / name).mkdir(parents=True, exist_ok=True)
            for name, entry in members:
                try:
                    file = (folder / name).open(
                        "xb"
                    )  # overwrites nothing, whatever names the file system takes for one
                except FileExistsError as error:
                    raise ArchiveError(f"{archive} has two entries for {str(name)!r}. It is not unpacked.") from error
                with file, opened.open(entry) as source:
                    shutil.copyfileobj(source, file)  # never more than entry.file_size
                done += entry.file_size
                report(done, size)
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of places before the file's beginning
            raise
        raise ArchiveError(f"{archive} is no zip archive that can be read: {error}.") from error
    without = f", without {len(left_out)} that are hidden or of a system ({some(left_out)})" if left_out else ""
    return f"{len(members)} files, {size / 1e6:,.0f} MB{without}"


def _members(
    archive: zipfile.ZipFile, path: Path
) -> tuple[list[PurePosixPath], list[tuple[PurePosixPath, zipfile.ZipInfo]], list[str]]:
    """Return the folders and the files, with their entries, below the data set's folder, and the names left out."""
    total, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
    if total > _LARGEST_RATIO * size:
        raise ArchiveError(
            f"{path} has {size / 1e6:,.1f} MB and would become {total / 1e6:,.1f} MB: more than {_LARGEST_RATIO} times "
            "as much, as no images do. It is not unpacked."
        )
    folders, kept, left_out = set(), [], []
    for entry in archive.infolist():
        name = _name(entry)
        place = PurePosixPath(name)  # without empty parts and "."
        is_folder, is_system = name.endswith(("/", "/.")), any(map(is_system_name, place.parts))
        if complaint := _complaint(place, entry, is_folder=is_folder, is_system=is_system):
            raise ArchiveError(f"{path} has an entry {complaint}: {name!r}. It is not unpacked.")
        above = place.parts if is_folder else place.parent.parts
        folders.add(tuple(takewhile(lambda part: not is_system_name(part), above)))
        if is_folder:
            continue
        if is_system:
            left_out.append(name)
        else:
            kept.append((place, entry))
    if not kept:
        raise ArchiveError(f"{path} holds no files.")
    around = PurePosixPath(os.path.commonpath([place.parent for place, _ in kept])).parts
    depth = next((index for index, folder in enumerate(around) if split_of(folder)), len(around))
    inside = [PurePosixPath(*folder[depth:]) for folder in sorted(folders) if folder[:depth] == around[:depth]]
    return inside, [(PurePosixPath(*place.parts[depth:]), entry) for place, entry in kept], left_out


def _name(entry: zipfile.ZipInfo) -> str:
    """Return an entry's name, in Unicode's form NFC, with "/" between the folders."""
    name = entry.orig_filename  # which Python has not cut at a NUL
    if not entry.flag_bits & 0x800:  # not said to be UTF-8, which macOS writes all the same
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return unicodedata.normalize("NFC", name).replace("\\", "/")  # old programs of Windows write backslashes


def _complaint(place: PurePosixPath, entry: zipfile.ZipInfo, *, is_folder: bool, is_system: bool) -> str | None:
    """Say why an archive with such an entry is not unpacked, None where it may be."""
    parts = place.parts
    leads_out = place.is_absolute() or _DRIVE.match(str(place)) or ".." in parts or not (parts or is_folder)
    if leads_out or len(parts) > _MOST_FOLDERS + 1:
        return f"whose name is no path of at most {_MOST_FOLDERS} folders below another"
    if UNFIT.search(str(place)) and not is_system:  # such as the icons of macOS, whose name ends in a carriage return
        return "whose name is no path in UTF-8 without control characters"
    if any(len(part.encode(errors="surrogateescape")) > _LONGEST_NAME for part in parts) and not is_system:
        return f"whose name has more than {_LONGEST_NAME} bytes, which file systems do not take"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "that is a link or a device"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # `zipfile` decompresses the other kinds without a limit: a megabyte may become gigabytes of memory.
        return "that is compressed in another way than by deflate, as zip programs do"
    return None
