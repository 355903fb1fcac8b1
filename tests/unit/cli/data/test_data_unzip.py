"""Nothing in an archive leads out of its folder, fills the disk, or leaves half a data set behind."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from cli.data.unzip import ArchiveError, unzip
from cli.errors import NotReadyError

PICTURES = {f"{split}/{label}/{number}.jpg": f"{split}{label}{number}".encode() * 50
            for split in ("train", "valid", "test") for label in ("a", "b ü") for number in range(20)}  # fmt: skip


def archive_of(path: Path, files: Mapping[str, bytes], *, below: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(below + name, content)
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


@pytest.mark.parametrize("below", ["", "dogImages/", "a/b c/"])
def test_folders_around_the_data_set_are_left_out(tmp_path: Path, below: str) -> None:
    unpack(archive_of(tmp_path / "x.zip", PICTURES, below=below), tmp_path / "dogs")
    assert files_below(tmp_path / "dogs") == PICTURES


def test_a_plain_folder_per_class_keeps_its_classes(tmp_path: Path) -> None:
    files = {"a/1.jpg": b"1", "b/1.jpg": b"2"}
    unpack(archive_of(tmp_path / "x.zip", files, below="dogs/"), tmp_path / "dogs")
    assert files_below(tmp_path / "dogs") == files


def test_an_only_split_is_not_taken_for_a_wrapping(tmp_path: Path) -> None:
    unpack(archive_of(tmp_path / "x.zip", {"train/a/1.jpg": b"1"}), tmp_path / "dogs")
    assert files_below(tmp_path / "dogs") == {"train/a/1.jpg": b"1"}


def test_hidden_files_and_those_of_macos_are_left_out(tmp_path: Path) -> None:
    junk = {"__MACOSX/dogImages/._train": b"x", "dogImages/.DS_Store": b"x", "dogImages/train/a/._1.jpg": b"x"}
    wrapped = {f"dogImages/{name}": content for name, content in PICTURES.items()}
    contents = unzip(archive_of(tmp_path / "x.zip", junk | wrapped), tmp_path / "dogs", report=lambda done, total: None)
    assert files_below(tmp_path / "dogs") == PICTURES
    assert contents.left_out == 3


@pytest.mark.parametrize(
    "name",
    ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "a/..", "..", "C:\\x.jpg", "C:x.jpg", "a\\..\\x.jpg", "a//x.jpg", "./x",
     "a/./x.jpg", "a/new\nline.jpg", "a/\x1b[2J.jpg", "a/" + "x" * 256],
)  # fmt: skip
def test_names_that_are_no_place_in_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    assert_refused(archive_of(tmp_path / "in" / "x.zip", {**PICTURES, name: b"evil"}), "has an entry that")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_name_with_a_nul_is_judged_as_a_whole(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.zip", {**PICTURES, "train/a/x_y.jpg": b""})
    archive.write_bytes(archive.read_bytes().replace(b"x_y.jpg", b"x\0y.jpg"))
    assert_refused(archive, "control characters")


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


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_same_name_twice_is_refused(tmp_path: Path, form: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("train/ü/1.jpg", b"x")
        name = unicodedata.normalize(form, "train/ü/1.jpg")
        if form == "NFC":
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr(name, b"y")
        else:
            archive.writestr(name, b"y")
    assert_refused(tmp_path / "x.zip", "two entries named")


def test_a_file_that_is_a_folder_too_is_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.zip", {"train/a": b"x", "train/a/1.jpg": b"y"})
    assert_refused(archive, "as a file and as a folder")


def test_a_bomb_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    assert_refused(archive_of(tmp_path / "x.zip", {"train/a/1.jpg": bytes(20_000_000)}), "100 times as much")


def test_an_entry_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.zip", {"train/a/1.jpg": bytes(20_000_000)})
    size = (20_000_000).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, (1000).to_bytes(4, "little")))
    assert_refused(archive, "Bad CRC-32")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_knows_no_limit_is_refused(tmp_path: Path, method: int) -> None:
    """An entry that says it is small would still be decompressed in memory, whole."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        archive.writestr("train/a/1.jpg", bytes(20_000_000))
    size = (20_000_000).to_bytes(4, "little")
    content = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(content.replace(size, (1000).to_bytes(4, "little")))
    tracemalloc.start()
    try:
        assert_refused(tmp_path / "x.zip", "another way than by deflate")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_entries_that_share_their_bytes_are_one_bomb(tmp_path: Path) -> None:
    """A thousand entries of the table of contents for one file: each is small, together they are not."""
    archive = archive_of(tmp_path / "x.zip", {"train/a/0000.jpg": os.urandom(100_000)})
    content = archive.read_bytes()
    start = content.index(b"PK\x01\x02")
    entry, end = content[start : content.index(b"PK\x05\x06")], content[content.index(b"PK\x05\x06") :]
    table = b"".join(entry.replace(b"0000", b"%04d" % number) for number in range(1000))
    end = end[:8] + struct.pack("<HHI", 1000, 1000, len(table)) + end[16:]
    archive.write_bytes(content[:start] + table + end)
    assert_refused(archive, "100 times as much")


def test_folders_deeper_than_python_can_remove_are_refused(tmp_path: Path) -> None:
    assert_refused(archive_of(tmp_path / "x.zip", {"a/" * 1000 + "1.jpg": b"x"}), "more than 50 folders")


def test_a_damaged_picture_leaves_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:  # stored, as pictures often are
        for name, content in PICTURES.items():
            archive.writestr(name, content)
    content = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(content.replace(PICTURES["test/a/19.jpg"][:20], b"x" * 20, 1))
    assert_refused(tmp_path / "x.zip", "Bad CRC-32")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_damage_is_noticed_whatever_the_compression(tmp_path: Path, method: int) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", method) as opened:
        opened.writestr("train/a/1.jpg", bytes(range(256)) * 8)
        data = opened.infolist()[0].header_offset + 30 + len("train/a/1.jpg")
    content = bytearray(archive.read_bytes())
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


def test_half_an_archive_is_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.zip", PICTURES)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    assert_refused(archive, "is no zip archive")


def test_an_archive_of_nothing_is_refused(tmp_path: Path) -> None:
    assert_refused(archive_of(tmp_path / "x.zip", {"train/.keep": b""}), "holds no files")


def test_a_full_disk_is_seen_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 1000))
    archive = archive_of(tmp_path / "x.zip", PICTURES)
    with pytest.raises(NotReadyError, match="are needed to unpack") as refused:
        unpack(archive, tmp_path / "dogs")
    assert not isinstance(refused.value, ArchiveError)  # the archive is fine
    assert list(tmp_path.iterdir()) == [archive]


def test_interrupted_there_is_nothing_under_the_name(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.zip", PICTURES)

    def interrupt(done: int, total: int | None) -> None:
        assert not (tmp_path / "dogs").exists()
        if done > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unzip(archive, tmp_path / "dogs", report=interrupt, threads=1)
    assert list(tmp_path.iterdir()) == [archive]


def test_what_a_killed_run_left_does_not_get_into_the_set(tmp_path: Path) -> None:
    (tmp_path / ".dogs.unpacking/train/c").mkdir(parents=True)
    (tmp_path / ".dogs.unpacking/train/c/half.jpg").write_bytes(b"ha")
    unpack(archive_of(tmp_path / "x.zip", PICTURES), tmp_path / "dogs")
    assert files_below(tmp_path / "dogs") == PICTURES


def test_a_folder_with_something_in_it_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dogs/mine.txt").write_text("mine")
    with pytest.raises(NotReadyError, match="cannot be unpacked"):
        unpack(archive_of(tmp_path / "x.zip", PICTURES), tmp_path / "dogs")
    assert files_below(tmp_path / "dogs") == {"mine.txt": b"mine"}
