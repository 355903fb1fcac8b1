from __future__ import annotations

import logging
import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image
from training_fixtures import LABELS, draw, write_data_set

from model.training.data import dataset as data
from model.training.data.dataset import DataSetError, discover, display_labels, fingerprint, load, whole_picture


def load_train(data_set, side=16):
    return load(
        data_set, "train", prepare=lambda image: whole_picture(image, side), side=side, shorter_side=side, threads=2
    )


@pytest.fixture
def root(tmp_path):
    return write_data_set(tmp_path / "dogs", train=3, valid=2, test=1)


def test_classes_are_the_sorted_folder_names_and_pictures_are_counted(root):
    data_set = discover(root)
    assert data_set.labels == tuple(sorted(LABELS))
    assert data_set.counts == {"train": 9, "valid": 6, "test": 3}
    for split in data_set.splits.values():
        assert all(path.parent.name == data_set.labels[target] for path, target in split.pictures())


def test_the_test_split_is_optional(root):
    shutil.rmtree(root / "test")
    assert discover(root).counts == {"train": 9, "valid": 6}


def test_hidden_files_and_folders_are_ignored(root):
    (root / "train" / LABELS[0] / ".DS_Store").write_bytes(b"x")
    for folder in (root / "train" / ".ipynb_checkpoints", root / "train" / LABELS[0] / ".thumbnails"):
        folder.mkdir()
        (folder / "a.png").write_bytes(draw(0, 0))
    (root / "train" / "README.txt").write_text("not a class")
    assert discover(root).counts["train"] == 9


def test_a_class_name_is_the_same_in_both_unicode_forms(root):
    name = next(label for label in LABELS if "É" in label)
    (root / "valid" / name).rename(root / "valid" / unicodedata.normalize("NFD", name))
    assert discover(root).counts["valid"] == 6


def test_missing_folder(tmp_path):
    with pytest.raises(DataSetError, match=r"no data set at .*nowhere.*train\|valid\|test"):
        discover(tmp_path / "nowhere")


@pytest.mark.parametrize("split", ["train", "valid"])
def test_missing_split(root, split):
    shutil.rmtree(root / split)
    with pytest.raises(DataSetError, match=f"no folder {split}"):
        discover(root)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_split_without_pictures(root, split):
    for label in LABELS:
        shutil.rmtree(root / split / label)
        (root / split / label).mkdir()
    with pytest.raises(DataSetError, match="no pictures in"):
        discover(root)


def test_one_class_only(root):
    for split in ("train", "valid", "test"):
        for label in LABELS[1:]:
            shutil.rmtree(root / split / label)
    with pytest.raises(DataSetError, match="only one class"):
        discover(root)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_class_without_training_pictures(root, split):
    (root / split / "Wolf").mkdir()
    (root / split / "Wolf" / "a.png").write_bytes(draw(0, 0))
    with pytest.raises(DataSetError, match=r"'Wolf'.*every class needs training pictures"):
        discover(root)


def test_class_without_validation_pictures_is_named_in_the_log(root, caplog):
    shutil.rmtree(root / "valid" / LABELS[2])
    assert discover(root).counts["valid"] == 4
    assert f"valid split has no pictures of '{LABELS[2]}'" in caplog.text


def test_pictures_are_decoded_in_order_with_their_targets_and_shapes(root):
    data_set = discover(root)
    pictures = load_train(data_set)
    assert pictures.pixels.shape == (9, 16, 16, 3)
    assert pictures.targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for path, pixels, aspect in zip(data_set.splits["train"].paths, pictures.pixels, pictures.aspects, strict=True):
        with Image.open(path) as image:
            assert aspect == pytest.approx(image.width / image.height)
            np.testing.assert_array_equal(pixels, whole_picture(image, 16))


def test_unreadable_pictures_are_left_out_and_named(root, caplog):
    broken = {
        "empty.jpg": b"",
        "page.jpg": b"<html>",
        "half.png": draw(0, 1)[:200],
    }
    for name, content in broken.items():
        (root / "train" / LABELS[1] / name).write_bytes(content)
    (root / "train" / LABELS[1] / "dangling.jpg").symlink_to(root / "nowhere.jpg")
    with caplog.at_level(logging.WARNING):
        pictures = load_train(discover(root))
    assert len(pictures) == 9
    assert pictures.targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert set(pictures.skipped) == {f"train/{LABELS[1]}/{name}" for name in broken}
    assert all(name in caplog.text for name in broken)


def test_nothing_but_unreadable_pictures(root):
    for path in (root / "train").rglob("*.png"):
        path.write_text("no picture")
    with pytest.raises(DataSetError, match=r"none of the 9 files in .*train is a readable picture"):
        load_train(discover(root))


def test_pictures_beyond_memory_lie_in_a_file(root, monkeypatch):
    data_set = discover(root)
    in_memory = load_train(data_set)
    monkeypatch.setattr(data.os, "sysconf", lambda name: 1)
    in_file = load_train(data_set)
    assert isinstance(in_file.pixels, np.memmap)
    np.testing.assert_array_equal(in_memory.pixels, in_file.pixels)


def test_a_disk_without_room_is_an_error_before_the_work(root, monkeypatch):
    monkeypatch.setattr(data.os, "sysconf", lambda name: 1)
    with pytest.raises(DataSetError, match="TMPDIR"):
        load_train(discover(root), side=2**20)


def test_display_labels_are_for_people():
    assert display_labels(["001.Carolina_dog", "Épagneul breton", "12.x", "123.", "007.a_b c"]) == [
        "Carolina dog",
        "Épagneul breton",
        "12.x",
        "123.",
        "a b c",
    ]


def test_display_labels_stay_distinct():
    assert display_labels(["001.Dog", "002.Dog", "003.Cat"]) == ["001.Dog", "002.Dog", "Cat"]


def test_fingerprint_is_of_the_content_and_not_of_the_place(root, tmp_path):
    digest = fingerprint(discover(root)).digest
    elsewhere = shutil.copytree(root, tmp_path / "copy")
    assert fingerprint(discover(elsewhere)).digest == digest

    changes = []
    for number, change in enumerate(
        (
            lambda folder: next((folder / "valid").rglob("*.png")).write_bytes(draw(0, 77)),
            lambda folder: next((folder / "train").rglob("*.png")).unlink(),
            lambda folder: (folder / "train" / LABELS[0] / "000.png").rename(folder / "train" / LABELS[0] / "new.png"),
            lambda folder: (folder / "train" / LABELS[0] / "000.png").rename(folder / "train" / LABELS[1] / "x.png"),
        )
    ):
        changed = shutil.copytree(root, tmp_path / f"changed{number}")
        change(changed)
        changes.append(fingerprint(discover(changed)).digest)
    assert len({digest, *changes}) == 5


def test_a_file_name_may_be_any_bytes_but_a_class_must_have_a_name(root):
    name = os.fsdecode(b"caf\xe9.png")  # as a zip archive of the 1990s leaves it
    next((root / "valid").rglob("*.png")).rename(root / "valid" / LABELS[0] / name)
    assert fingerprint(discover(root)).digest.startswith("sha256:")
    (root / "train" / LABELS[0]).rename(root / "train" / name)
    with pytest.raises(DataSetError, match=r"caf\\udce9\.png' is not a name in UTF-8; rename the folder"):
        discover(root)


def test_pictures_that_leak_from_training_are_named(root, caplog):
    shutil.copy(root / "train" / LABELS[0] / "000.png", root / "test" / LABELS[0] / "again.png")
    assert fingerprint(discover(root)).leaked == (f"test/{LABELS[0]}/again.png",)
    assert "again.png" in caplog.text
