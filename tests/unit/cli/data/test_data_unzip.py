"""Nothing in an archive leads out of its folder, fills the disk, or leaves half a data set behind."""

from __future__ import annotations

import os
import stat
import struct
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cli.data.unzip import ArchiveError, unzip

IMAGES = {f"{split}/{label}/{number}.jpg": f"{split}{label}{number}".encode() * 50
          for split in ("train", "valid", "test") for label in ("a", "b ü") for number in range(20)}  # fmt: skip


def archive_of(path: Path, files: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def unpack(archive: Path, directory: Path) -> None:
    unzip(archive, directory, report=lambda done, total: None)


def files_below(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes()
            for path in directory.rglob("*") if path.is_file()}  # fmt: skip


def assert_refused(archive: Path, complaint: str) -> None:
    """The archive is refused, and nothing but itself is in its folder afterwards."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(ArchiveError, match=complaint):
        unpack(archive, archive.parent / "dogs")
    assert sorted(archive.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("below", "files"),
    [
        ("", IMAGES),
        ("a/b c/", IMAGES),
        ("dogs/", {"a/1.jpg": b"1", "b/1.jpg": b"2"}),
        ("", {"train/a/1.jpg": b"1"}),  # an only split is no wrapping
    ],
)
def test_folders_around_the_data_set_and_hidden_files_are_left_out(
    tmp_path: Path, below: str, files: dict[str, bytes]
) -> None:
    junk = dict.fromkeys([f"__MACOSX/{below}._train", f"{below}.DS_Store", f"{below}train/a/._1.jpg"], b"x")
    archive = archive_of(tmp_path / "x.zip", junk | {below + name: data for name, data in files.items()})
    unpack(archive, tmp_path / "dogs")
    assert files_below(tmp_path / "dogs") == files


@pytest.mark.parametrize(
    "name",
    ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "..", "C:\\x.jpg", "C:x.jpg", "a\\..\\x.jpg", "a//x.jpg", "./x",
     "a/new\nline.jpg", "a/\x1b[2J.jpg", "a/" + "x" * 256, "a/" + "ü" * 128, "a/" * 1000 + "1.jpg"],
)  # fmt: skip
def test_names_that_are_no_place_in_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    assert_refused(archive_of(tmp_path / "in" / "x.zip", {**IMAGES, name: b"evil"}), "whose name is no path")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def with_link(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("train/a")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc")


def encrypted(path: Path) -> None:
    content = bytearray(archive_of(path, {"train/a/1.jpg": b"x"}).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def with_a_nul(path: Path) -> None:
    path.write_bytes(archive_of(path, {"train/a/x_y.jpg": b""}).read_bytes().replace(b"x_y.jpg", b"x\0y.jpg"))


def twice_in_unicode(path: Path) -> None:
    archive_of(path, {unicodedata.normalize(form, "train/ü/1.jpg"): b"x" for form in ("NFC", "NFD")})


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (with_link, "is a link"),
        (encrypted, "is encrypted"),
        (with_a_nul, "whose name is no path"),
        (twice_in_unicode, "two entries named"),
        (lambda path: archive_of(path, {"train/a": b"x", "train/a/1.jpg": b"y"}), "as a file and as a folder"),
        (lambda path: path.write_bytes(b"<html>Sign in</html>"), "is no zip archive"),
        (lambda path: archive_of(path, {"train/.keep": b""}), "holds no files"),
    ],
)
def test_what_cannot_be_one_data_set_is_refused(tmp_path: Path, make: Callable[[Path], None], complaint: str) -> None:
    make(tmp_path / "x.zip")
    assert_refused(tmp_path / "x.zip", complaint)


def lie_about_the_size(archive: Path) -> None:
    size, said = (20_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, said))


def share_the_bytes(archive: Path) -> None:
    """Write a thousand entries of the table of contents for one file: each is small, together they are not."""
    archive_of(archive, {"train/a/0000.jpg": os.urandom(100_000)})
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
def test_bombs_are_refused(tmp_path: Path, method: int, change: Callable[[Path], None], complaint: str) -> None:
    archive = archive_of(tmp_path / "x.zip", {"train/a/1.jpg": bytes(20_000_000)}, method=method)
    change(archive)
    tracemalloc.start()
    try:
        assert_refused(archive, complaint)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_interrupted_or_killed_nothing_has_the_name(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.zip", IMAGES)

    def interrupt(done: int, total: int) -> None:
        assert not (tmp_path / "dogs").exists()
        if done > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unzip(archive, tmp_path / "dogs", report=interrupt)
    assert list(tmp_path.iterdir()) == [archive]
    (tmp_path / ".dogs.unpacking/train/c").mkdir(parents=True)
    (tmp_path / ".dogs.unpacking/train/c/half.jpg").write_bytes(b"ha")
    unpack(archive, tmp_path / "dogs")
    assert files_below(tmp_path / "dogs") == IMAGES
