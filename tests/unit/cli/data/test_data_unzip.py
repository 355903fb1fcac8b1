"""Nothing in an archive leads out of its folder, fills the disk, or leaves half a data set behind."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cli.data.unzip import ArchiveError, unzip
from cli.errors import NotReadyError

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


def assert_refused(archive: Path, complaint: str, *, error: type[NotReadyError] = ArchiveError) -> None:
    """The archive is refused, and nothing but itself is in its folder afterwards."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(error, match=complaint):
        unpack(archive, archive.parent / "dogs")
    assert sorted(archive.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("below", "files"),
    [
        ("", IMAGES),
        ("dogImages/", IMAGES),
        ("a/b c/", IMAGES),
        ("dogs/", {"a/1.jpg": b"1", "b/1.jpg": b"2"}),
        ("", {"train/a/1.jpg": b"1"}),  # an only split is no wrapping
    ],
)
def test_folders_around_the_data_set_are_left_out(tmp_path: Path, below: str, files: dict[str, bytes]) -> None:
    unpack(archive_of(tmp_path / "x.zip", {below + name: data for name, data in files.items()}), tmp_path / "dogs")
    assert files_below(tmp_path / "dogs") == files


def test_hidden_files_and_those_of_macos_are_left_out(tmp_path: Path) -> None:
    junk = {"__MACOSX/dogImages/._train": b"x", "dogImages/.DS_Store": b"x", "dogImages/train/a/._1.jpg": b"x"}
    wrapped = {f"dogImages/{name}": content for name, content in IMAGES.items()}
    unpack(archive_of(tmp_path / "x.zip", junk | wrapped), tmp_path / "dogs")
    assert files_below(tmp_path / "dogs") == IMAGES


@pytest.mark.parametrize(
    "name",
    ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "a/..", "..", "C:\\x.jpg", "C:x.jpg", "a\\..\\x.jpg", "a//x.jpg", "./x",
     "a/./x.jpg", "a/new\nline.jpg", "a/\x1b[2J.jpg", "a/" + "x" * 256, "a/" + "ü" * 128, "a/" * 1000 + "1.jpg"],
)  # fmt: skip
def test_names_that_are_no_place_in_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    assert_refused(archive_of(tmp_path / "in" / "x.zip", {**IMAGES, name: b"evil"}), "whose name is no path")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_name_with_a_nul_is_judged_as_a_whole(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.zip", {**IMAGES, "train/a/x_y.jpg": b""})
    archive.write_bytes(archive.read_bytes().replace(b"x_y.jpg", b"x\0y.jpg"))
    assert_refused(archive, "whose name is no path")


def test_links_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        link = zipfile.ZipInfo("train/a")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc")
        archive.writestr("train/b/1.jpg", b"x")
    assert_refused(tmp_path / "x.zip", "is a link")


def test_encrypted_entries_are_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.zip", {"train/a/1.jpg": b"x"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    assert_refused(archive, "is encrypted")


def test_the_same_name_twice_is_refused_in_any_unicode_form(tmp_path: Path) -> None:
    files = {unicodedata.normalize(form, "train/ü/1.jpg"): b"x" for form in ("NFC", "NFD")}
    assert_refused(archive_of(tmp_path / "x.zip", files), "two entries named")


def test_a_file_that_is_a_folder_too_is_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.zip", {"train/a": b"x", "train/a/1.jpg": b"y"})
    assert_refused(archive, "as a file and as a folder")


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
        (zipfile.ZIP_LZMA, lie_about_the_size, "another way than by deflate"),
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


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_damage_is_noticed_whatever_the_compression(tmp_path: Path, method: int) -> None:
    archive = archive_of(tmp_path / "x.zip", {"train/a/1.jpg": bytes(range(256)) * 8}, method=method)
    content, data = bytearray(archive.read_bytes()), 30 + len("train/a/1.jpg")
    content[data + 15 : data + 45] = b"\xff" * 30
    archive.write_bytes(content)
    assert_refused(archive, "is no zip archive that can be read")


@pytest.mark.parametrize("copy", [0, 1])  # before the data, and in the table of contents
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, copy: int) -> None:
    archive = archive_of(tmp_path / "x.zip", {"train/ü/1.jpg": b"1"})
    parts = archive.read_bytes().split("ü".encode())
    names = [b"\xff\xff" if number == copy else "ü".encode() for number in range(2)]
    archive.write_bytes(parts[0] + names[0] + parts[1] + names[1] + parts[2])
    assert_refused(archive, "is no zip archive that can be read")


@pytest.mark.parametrize("content", [b"", b"<html>Sign in</html>", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    assert_refused(tmp_path / "x.zip", "is no zip archive")


def test_half_an_archive_and_an_archive_of_nothing_are_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.zip", IMAGES)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    assert_refused(archive, "is no zip archive")
    assert_refused(archive_of(tmp_path / "x.zip", {"train/.keep": b""}), "holds no files")


def test_a_full_disk_is_seen_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 1000))
    archive = archive_of(tmp_path / "x.zip", IMAGES)
    with pytest.raises(NotReadyError, match="are needed to unpack") as refused:
        unpack(archive, tmp_path / "dogs")
    assert not isinstance(refused.value, ArchiveError)  # the archive is fine
    assert list(tmp_path.iterdir()) == [archive]


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


def test_a_folder_with_something_in_it_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dogs/mine.txt").write_text("mine")
    with pytest.raises(NotReadyError, match="cannot be unpacked"):
        unpack(archive_of(tmp_path / "x.zip", IMAGES), tmp_path / "dogs")
    assert files_below(tmp_path / "dogs") == {"mine.txt": b"mine"}
