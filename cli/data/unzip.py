"""Unpack a zip of images that anyone may have made: all of it, checked, or nothing."""

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

from cli.data.dataset import require_room
from cli.errors import NotReadyError
from model.training.data.image_folder import SPLIT_FOLDERS

_LARGEST_RATIO = 100  # unpacked to packed; bitmaps of drawings have 20, deflate's limit, which bombs use, is 1032
_MOST_FOLDERS = 50  # in each other
_LONGEST_NAME = 255  # in bytes: what file systems take
# Not empty, "." or "..", without separators, control characters and half characters, and not too long for file systems.
_PART = r"(?!\.{1,2}(/|$))[^/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}"
_NAME = re.compile(rf"(?![A-Za-z]:){_PART}(/{_PART}){{0,{_MOST_FOLDERS}}}/?")  # no Windows drive
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError)


class ArchiveError(NotReadyError):
    """The archive is damaged or must not be unpacked."""


def unzip(archive: Path, directory: Path, *, report: Callable[[int, int], None]) -> str:
    """Unpack a data set into a folder that is not there yet, or empty; return what was unpacked, in words.

    The table of contents is judged before the first byte is written, and `directory` appears when it is complete.
    Hidden files, ``__MACOSX`` and folders that only wrap the data set are left out.

    Raises
    ------
    ArchiveError
        When it is no zip, damaged or unsafe. Nothing is left of it.
    NotReadyError
        When the disk is too small or cannot be written.
    """
    unfinished, done = directory.with_name(f".{directory.name}.unpacking"), 0
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a killed run
        with zipfile.ZipFile(archive) as opened:
            members = _members(opened, archive)
            size = sum(entry.file_size for entry in members.values())
            require_room(directory.parent, size, "unpack it")
            unfinished.mkdir()
            for name, entry in members.items():
                (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
                # "x": where the file system takes two names for one, the second is an error and overwrites nothing.
                with opened.open(entry) as source, (unfinished / name).open("xb") as target:
                    shutil.copyfileobj(source, target)  # never more than entry.file_size
                done += entry.file_size
                report(done, size)
        unfinished.rename(directory)
    except _DAMAGED as error:
        raise ArchiveError(f"{archive} is no zip archive that can be read: {error}.") from error
    except OSError as error:
        raise NotReadyError(f"{archive} cannot be unpacked into {directory}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return f"{len(members)} files, {size / 1e6:,.0f} MB"


def _members(archive: zipfile.ZipFile, path: Path) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Decide which entries are unpacked, by their paths below the data set's folder."""
    total, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
    if total > _LARGEST_RATIO * size:
        raise ArchiveError(
            f"{path} has {size / 1e6:,.1f} MB and would become {total / 1e6:,.1f} MB: more than {_LARGEST_RATIO} times "
            "as much, as no pictures do. It is not unpacked."
        )
    kept: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = _checked_name(entry, path)
        if entry.is_dir() or any(part.startswith(".") or part == "__MACOSX" for part in name.parts):
            continue
        if name in kept:
            raise ArchiveError(f"{path} has two entries named {str(name)!r}. It is not unpacked.")
        kept[name] = entry
    if not kept:
        raise ArchiveError(f"{path} holds no files.")
    if both := kept.keys() & {folder for name in kept for folder in name.parents}:
        raise ArchiveError(f"{path} has {str(min(both))!r} as a file and as a folder. It is not unpacked.")
    around = PurePosixPath(os.path.commonpath([name.parent for name in kept])).parts
    depth = next((index for index, folder in enumerate(around) if folder.lower() in SPLIT_FOLDERS), len(around))
    return {PurePosixPath(*name.parts[depth:]): entry for name, entry in kept.items()}


def _checked_name(entry: zipfile.ZipInfo, path: Path) -> PurePosixPath:
    """Return the entry's path in Unicode's form NFC, if it can only be one below the folder that is unpacked into."""
    # Python cuts names at a NUL and turns Windows' separators; what the archive really says is in `orig_filename`.
    name = unicodedata.normalize("NFC", entry.orig_filename)
    if not _NAME.fullmatch(name) or any(len(part.encode()) > _LONGEST_NAME for part in name.split("/")):
        complaint = f"whose name is no path of at most {_MOST_FOLDERS} folders below another"
    elif stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        complaint = "that is a link or a device"
    elif entry.flag_bits & 0x1:
        complaint = "that is encrypted"
    elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # `zipfile` decompresses the other kinds without a limit: a megabyte may become gigabytes of memory.
        complaint = "that is compressed in another way than by deflate, as zip programs do"
    else:
        return PurePosixPath(name)
    raise ArchiveError(f"{path} has an entry {complaint}: {name!r}. It is not unpacked.")
