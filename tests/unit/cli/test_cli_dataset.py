"""Finding and splitting a folder-per-class data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.data.dataset import read_data_set
from cli.errors import NotReadyError


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_a_data_set_with_splits_keeps_them(tmp_path: Path) -> None:
    make(tmp_path, "train/a/1.jpg", "train/b/2.PNG", "val/a/3.jpeg", "test/b/deep/4.webp")
    data_set = read_data_set(tmp_path)
    assert {picture.key for picture in data_set.pictures} == {
        "train/a/1.jpg", "train/b/2.PNG", "valid/a/3.jpeg", "test/b/deep/4.webp",
    }  # fmt: skip
    assert data_set.labels == ["a", "b"]
    assert not data_set.was_split


def test_class_names_may_hold_spaces_unicode_and_numbers(tmp_path: Path) -> None:
    names = ["001.Affenpinscher", "Bichon Frisé", "柴犬"]
    make(tmp_path, *[f"{split}/{name}/x.jpg" for name in names for split in ("train", "valid")])
    assert read_data_set(tmp_path).labels == sorted(names)


def test_hidden_files_are_left_out_and_other_files_are_counted(tmp_path: Path) -> None:
    make(tmp_path, "train/a/1.jpg", "train/a/.DS_Store", "train/b/1.jpg", "train/b/notes.txt", "valid/a/1.jpg",
         ".cache/train/a/1.jpg")  # fmt: skip
    data_set = read_data_set(tmp_path)
    assert len(data_set.pictures) == 3
    assert [path.name for path in data_set.ignored] == ["notes.txt"]


def test_a_plain_folder_per_class_is_split_by_content(tmp_path: Path) -> None:
    make(tmp_path, *[f"{label}/{number}.jpg" for label in ("a", "b") for number in range(30)])
    first = read_data_set(tmp_path)
    assert first.was_split
    assert first.counts() == {"train": 48, "valid": 6, "test": 6}
    by_content = {picture.path.read_bytes(): picture.split for picture in first.pictures}
    for path in sorted(tmp_path.rglob("*.jpg")):  # other names, same bytes: the same split
        path.rename(path.with_name("renamed-" + path.name))
    assert all(by_content[picture.path.read_bytes()] == picture.split for picture in read_data_set(tmp_path).pictures)


def test_copies_of_a_picture_never_land_in_two_splits(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for number in range(20):
            for copy in range(3):
                path = tmp_path / label / f"{number}-{copy}.jpg"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(f"{label}{number}".encode())
    splits: dict[bytes, set[str]] = {}
    for picture in read_data_set(tmp_path).pictures:
        splits.setdefault(picture.path.read_bytes(), set()).add(picture.split)
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ([], "no pictures"),
        (["train/a/readme.txt"], "no pictures"),
        (["train/a/1.jpg", "train/b/1.jpg"], "no pictures in valid/"),
        (["valid/a/1.jpg", "train/.keep"], "no pictures in train/"),
        (["train/a/1.jpg", "valid/a/1.jpg"], "one class only"),
        (["train/a/1.jpg", "train/b/1.jpg", "valid/c/1.jpg"], "valid/ has classes that train/ lacks: 'c'"),
        (["a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg"], "'b' has 1 different pictures"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_the_reason(tmp_path: Path, files: list[str], complaint: str) -> None:
    make(tmp_path, *files)
    with pytest.raises(NotReadyError) as refused:
        read_data_set(tmp_path)
    assert complaint in str(refused.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match=r"There is no data set at .*nowhere"):
        read_data_set(tmp_path / "nowhere")
