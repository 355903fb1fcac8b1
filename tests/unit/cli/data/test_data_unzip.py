"""Nothing in an archive leads out of its folder, fills the disk, or takes the memory."""

from __future__ import annotations

import os
import re
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cli.data.unzip import ArchiveError, unzip

IMAGES = {f"{split}/{label}/1.jpg": b"x" * 1000 for split in ("train", "valid") for label in ("a", "b ü")}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "x.zip"


def write(archive: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(archive, "w", method) as file:
        for name, content in files.items():
            file.writestr(name, content)


def unpack(archive: Path) -> dict[str, bytes]:
    folder = archive.with_name("dogs")
    folder.mkdir()
    unzip(archive, folder, report=lambda done, total: None)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(archive: Path, complaint: str) -> None:
    with pytest.raises(ArchiveError, match=complaint):
        unpack(archive)
    assert sorted(path.name for path in archive.parent.iterdir()) == ["dogs", "x.zip"]


@pytest.mark.parametrize(
    ("below", "files"),
    [
        ("", IMAGES),
        ("a/b c/", IMAGES),
        ("dogs/", {"a/1.jpg": b"1", "b/1.jpg": b"2"}),
        ("", {"train/a/1.jpg": b"1"}),  # an only split is no wrapping
        ("./dogs//./", IMAGES),
        ("dogs\\", IMAGES),
    ],
)
def test_folders_around_the_data_set_and_hidden_files_are_left_out(archive, below, files):
    junk = dict.fromkeys([f"__MACOSX/{below}._train", f"{below}.DS_Store", f"{below}train/a/Icon\r"], b"x")
    write(archive, junk | {below + name: data for name, data in files.items()})
    assert unpack(archive) == files


def test_no_class_is_lost_what_is_left_out_is_named_and_utf_8_needs_no_mark(archive: Path) -> None:
    write(archive, {"dogs/train/ü/1.jpg": b"1", "dogs/train/empty/": b"", "dogs/train/system/@eaDir/1.jpg": b"x"})
    unmarked = re.sub(rb"(?s)(PK\x03\x04..|PK\x01\x02....)\0\x08", rb"\1\0\0", archive.read_bytes())
    archive.write_bytes(unmarked)  # as the archives of macOS
    folder = archive.with_name("dogs")
    folder.mkdir()
    assert "without 1 that" in (said := unzip(archive, folder, report=lambda done, total: None))
    assert "(dogs/train/system/@eaDir/1.jpg)" in said
    assert {path.name for path in (folder / "train").iterdir()} == {"ü", "empty", "system"}


@pytest.mark.parametrize(
    "name",
    ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "..", "C:\\x.jpg", "C:x.jpg", "a\\..\\x.jpg", "\\x.jpg",
     "\\\\server\\x.jpg", ".", "./../x.jpg", "a/new\nline.jpg", "a/\x1b[2J.jpg", "a/" * 1000 + "1.jpg",
     "ü" * 126 + ".jpg"],
)  # fmt: skip
def test_names_that_are_no_place_in_the_folder_are_refused_before_anything_is_written(archive: Path, name: str) -> None:
    write(archive, {**IMAGES, name: b"evil"})
    assert_refused(archive, "whose name (is no path|has more than 255 bytes)")
    assert not list(archive.with_name("dogs").iterdir())


def patched(offset: int, value: bytes) -> Callable[[Path], None]:
    """Make an archive of one file whose entry in the table of contents is changed."""

    def make(path: Path) -> None:
        write(path, {"train/a/x_y.jpg": b"x"})
        content = path.read_bytes()
        start = content.index(b"PK\x01\x02") + offset
        path.write_bytes(content[:start] + value + content[start + len(value) :])

    return make


def twice(*names: str) -> Callable[[Path], None]:
    return lambda path: write(path, dict.fromkeys(names, b"x"))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (patched(38, ((stat.S_IFLNK | 0o777) << 16).to_bytes(4, "little")), "is a link"),
        (patched(8, b"\1"), "is encrypted"),
        (patched(46 + len("train/a/x"), b"\0"), "whose name is no path"),
        (twice("train/\u00fc/1.jpg", "train/u\u0308/1.jpg"), "has two entries for"),  # one letter in two forms
        (twice("train/a", "train/a/1.jpg"), "has two entries for"),
        (twice("train\\a\\1.jpg", "./train/a/1.jpg"), "has two entries for"),
        (lambda path: path.write_bytes(b"<html>Sign in</html>"), "is no zip archive"),
        (lambda path: write(path, IMAGES) or path.write_bytes(path.read_bytes()[100:]), "is no zip archive"),
        (lambda path: write(path, {"train/.keep": b""}), "holds no files"),
    ],
)
def test_what_cannot_be_one_data_set_is_refused(archive: Path, make: Callable[[Path], None], complaint: str) -> None:
    make(archive)
    assert_refused(archive, complaint)


def lie_about_the_size(archive: Path) -> None:
    size, said = (20_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, said))


def share_the_bytes(archive: Path) -> None:
    """Write a thousand entries of the table of contents for one file: each is small, together they are not."""
    write(archive, {"train/a/0000.jpg": os.urandom(100_000)})
    content = archive.read_bytes()
    start = content.index(b"PK\x01\x02")
    entry, end = content[start : content.index(b"PK\x05\x06")], content[content.index(b"PK\x05\x06") :]
    table = b"".join(entry.replace(b"0000", b"%04d" % number) for number in range(1000))
    end = end[:8] + struct.pack("<HHI", 1000, 1000, len(table)) + end[16:]
    archive.write_bytes(content[:start] + table + end)


@pytest.mark.parametrize(
    ("method", "change", "complaint"),
    [
        (zipfile.ZIP_DEFLATED, lambda archive: None, "100 times as much"),
        (zipfile.ZIP_DEFLATED, share_the_bytes, "100 times as much"),
        (zipfile.ZIP_DEFLATED, lie_about_the_size, "Bad CRC-32"),
        (zipfile.ZIP_BZIP2, lie_about_the_size, "another way than by deflate"),  # it would be decompressed in memory
    ],
)
def test_bombs_are_refused(archive: Path, method: int, change: Callable[[Path], None], complaint: str) -> None:
    write(archive, {"train/a/1.jpg": bytes(20_000_000)}, method)
    change(archive)
    tracemalloc.start()
    try:
        assert_refused(archive, complaint)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
