"""The files below a folder, and by name what is left out: nothing is passed over in silence."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SPLITS = ("train", "valid", "test")
# What Pillow registers for the formats of core/decoding, and the further names of JPEG that browsers know
# (developer.mozilla.org, "Image file type and format guide").
JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".mpo"})
IMAGE_SUFFIXES = JPEG_SUFFIXES | {
    ".png", ".apng", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".avifs", ".heic", ".heif", ".hif",
}  # fmt: skip
# Trash, snapshots, thumbnails and indexes, in lower case; hidden names need no entry. Of Synology, QNAP, NetApp and
# Buffalo; Windows (github.com/github/gitignore, Global/Windows), macOS (Global/macOS), ext4, Android; GoodSync, Python.
_SYSTEM_NAMES = frozenset({
    "@eadir", "#recycle", "#snapshot", "@tmp", "@sharesnap", "@sharebin", "@recycle", "@recently-snapshot",
    "@__thumb", "~snapshot", "trashbox", "$recycle.bin", "recycler", "recycle.bin", "system volume information",
    "$extend", "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "network trash folder",
    "temporary items", "network recycle bin", "icon\r", "lost+found", "lost.dir", "_gsdata_", "__pycache__",
})  # fmt: skip
_RECOVERED = re.compile(r"found\.\d{3}", re.IGNORECASE)  # by chkdsk of Windows
_SPLIT_NAME = re.compile(r"(train|valid|val|test)(?:ing|ation)?(?:[ _-]?(?:set|split|data|images))?", re.IGNORECASE)
# Control characters, and bytes of names that are not UTF-8: no text, so no part of a label or of a key in a bucket.
UNFIT = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")
_SHOWN = 5  # of many names


class DataSetError(Exception):
    """The data set cannot be used. The message says what is wrong and what is allowed."""


@dataclass
class Listing:
    """The files and folders below a folder, by their paths, and the reasons why others are left out, by their places.

    A place is the path below the folder; that of a folder ends in "/" and stands for all that is in it. A link that
    leads to no further folder but has no image's name is among the folders, too: it was meant for one.
    """

    root: Path
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def leave_out(self, path: Path, reason: str) -> None:
        """Note why a file, or a folder with all that is in it, is left out."""
        self.left_out[path.relative_to(self.root).as_posix() + "/" * path.is_dir()] = reason


def split_of(folder: str) -> str | None:
    """Return which of `SPLITS` a folder's name says that it is, None for any other name."""
    found = _SPLIT_NAME.fullmatch(folder)
    return found and {"val": "valid"}.get(name := found[1].lower(), name)


def some(names: Sequence[str]) -> str:
    """Return the first few names, printable, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return UNFIT.sub(lambda found: ascii(found[0])[1:-1], ", ".join(names[:_SHOWN])) + more


def is_system_name(name: str) -> bool:
    """Tell whether a file or folder is hidden, or made by a file system, a desktop or a network disk for itself."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES or bool(_RECOVERED.fullmatch(name))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise, in place of an OSError, a DataSetError that names a path, or what the error is about."""
    try:
        yield
    except OSError as error:
        where, reason = error.filename or path, error.strerror or str(error)
        raise DataSetError(f"{where} cannot be read: {reason}. Make it readable or remove it.") from error


def list_files(root: Path) -> Listing:
    """List the files below a folder; a DataSetError names one that cannot be read.

    Links are followed, after everything that is no link: each folder is listed once, so that no loop has a second turn.
    """
    found = Listing(root)
    waiting, links = deque([root]), deque[Path]()
    seen = {_identity(parent) for parent in root.resolve().parents}  # a link to one of them leads around the data set
    while waiting or links:
        folder = waiting.popleft() if waiting else links.popleft()
        with reading(folder):
            if folder != root:
                found.folders.append(folder)
            if (identity := _identity(folder)) in seen:
                found.leave_out(folder, "a link to a folder that is listed already or is around the data set")
                continue
            seen.add(identity)
            for path in sorted(folder.iterdir()):
                if is_system_name(path.name):
                    found.leave_out(path, "hidden or of the system")
                elif path.is_dir():
                    (links if path.is_symlink() else waiting).append(path)
                elif path.is_file():
                    found.files.append(path)
                elif path.is_symlink():
                    found.leave_out(path, "a link to nothing")
                    found.folders += [path] if path.suffix.lower() not in IMAGE_SUFFIXES else []
                else:
                    found.leave_out(path, "neither a file nor a folder")
    found.files.sort()
    return found


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
