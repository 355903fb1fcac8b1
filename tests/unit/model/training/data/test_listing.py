"""Every file of a data set is an image of it or named as left out; layouts as they come; what is held out stays so."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from training_fixtures import write_files

from model.core.decoding import FORMATS
from model.training.data import held_out
from model.training.data.held_out import hold_out
from model.training.data.image_folder import find
from model.training.data.listing import IMAGE_SUFFIXES, JPEG_SUFFIXES

FOLDERS = ["a", "b", "train", "@eaDir", "#Recycle", "$RECYCLE.BIN", "lost+found", "System Volume Information",
           "__MACOSX", ".Trash-1000", "CON", "end. ", "\x1b[2J", "é", "e\u0301", os.fsdecode(b"caf\xe9"),
           "picture.jpg"]  # fmt: skip
FILES = ["1.jpg", "1.JPG", "2.jfif", "3.HEIC", "notes.txt", "Thumbs.db", "Icon\r", "._1.jpg", "a",
         os.fsdecode(b"\xe9.png"), "x" * 250]  # fmt: skip
SYSTEM = ("train/@eaDir/x/{}.jpg", "Found.001/{}.jpg", "lost+found/{}.jpg", "System Volume Information/{}.jpg")
SPLIT = ("train/a/1.jpg", "train/b/2.jpg", "valid/a/3.jpg")


def files_below(root: Path) -> list[Path]:
    """All files and links, those of linked folders only where they really are."""
    walked = [(Path(at), folders, files) for at, folders, files in os.walk(root)]
    links = [at / name for at, folders, _ in walked for name in folders if (at / name).is_symlink()]
    return links + [at / name for at, _, files in walked for name in files]


PLACES = st.tuples(st.lists(st.sampled_from(FOLDERS), max_size=3), st.sampled_from(FILES))
LINKS = st.tuples(PLACES, st.lists(st.sampled_from([*FOLDERS, "..", "nowhere"]), max_size=3))


@settings(max_examples=50)
@given(st.lists(PLACES, max_size=8), st.lists(LINKS, max_size=5))
def test_every_file_is_an_image_of_the_set_or_named_once_in_what_is_left_out(files, links):
    with tempfile.TemporaryDirectory() as name:
        root = write_files(Path(name) / "set", *SPLIT)
        for place, target in [(place, None) for place in files] + links:
            path = root.joinpath("train", *place[0], place[1])
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch() if target is None else path.symlink_to(Path(*target) if target else root)
            except OSError:
                continue  # it goes through another of them
        folder = find(root)
        read = Counter(image.path for image in folder.images)
        assert set(read.values()) == {1}
        for path in files_below(root):
            relative = path.relative_to(root).as_posix()
            named = [place for place in folder.left_out if f"{relative}/".startswith(f"{place.rstrip('/')}/")]
            followed = path.is_dir() and not named
            assert read[path] + len(named) + followed == 1, (relative, named)


@pytest.mark.parametrize(
    ("names", "labels", "held"),
    [
        (["bus/{}.jpg", "car/{}.jpg", "train/{}.jpg", *SYSTEM], ("bus", "car", "train"), ("valid", "test")),
        (["train/a/{}.jpg", "train/b/x/{}.jpg", "test/a/{}.jpg"], ("a", "b"), ("valid",)),
        (["train/a/{}.jpg", "train/b/{}.jpg"], ("a", "b"), ("valid", "test")),
        (["train/a/{}.jpg", "train/b/{}.jpg", "Val/a/{}.jpg"], ("a", "b"), ()),
        (["Training_Set/a/{}.jpg", "Training_Set/b/{}.jpg", "Testing/a/{}.jpg"], ("a", "b"), ("valid",)),
    ],
)
def test_folders_are_splits_or_classes_by_their_content_and_what_is_missing_is_held_out(tmp_path, names, labels, held):
    folder = find(write_files(tmp_path, *[name.format(number) for name in names for number in range(40)]))
    assert (folder.labels, folder.held_out) == (labels, held)
    assert all(folder.counts[split] >= len(labels) for split in ("train", *held))
    assert all(split in folder.notes()[0] for split in held)
    assert "train/" not in [name for split in held for name in folder.left_out]


def test_links_are_followed_once_and_others_named(tmp_path):
    write_files(tmp_path / "far", "more/1.jpg", "more/deep/2.jpg")
    root = write_files(tmp_path / "set", *SPLIT)
    for place, target in (("train/a/far", tmp_path / "far"), ("train/a/back", root), ("train/b/up", tmp_path),
                          ("train/b/gone.jpg", root / "gone"), ("train/b/self.jpg", "self.jpg"),
                          ("train/again", root / "train" / "a"), ("train/c", tmp_path / "far" / "more"),
                          ("train/gone", root / "gone"), ("test", root / "train")):  # fmt: skip
        (root / place).symlink_to(target)
    os.mkfifo(root / "train" / "b" / "pipe.jpg")
    folder = find(root)
    assert {image.key for image in folder.images} == {*SPLIT, "train/c/1.jpg", "train/c/deep/2.jpg"}
    assert set(folder.left_out) == {"train/a/back/", "train/b/up/", "train/again/", "train/a/far/more/", "train/gone",
                                    "test/", "train/b/gone.jpg", "train/b/self.jpg", "train/b/pipe.jpg"}  # fmt: skip
    (problem,) = folder.problems()
    assert "no images in train/again/, train/gone/: a class would be lost" in problem
    (root / "valid").rename(tmp_path / "valid")
    (root / "valid").symlink_to("train")
    assert "no images in valid/" in find(root).problems()[0]


def test_all_names_that_images_of_the_formats_have_are_images():
    Image.init()
    registered = {suffix: format for suffix, format in Image.registered_extensions().items() if format in FORMATS}
    assert registered.keys() <= IMAGE_SUFFIXES
    assert {suffix for suffix, format in registered.items() if format == "JPEG"} <= JPEG_SUFFIXES


DIGESTS = st.sets(st.integers(0, 999), min_size=3, max_size=40)


@given(DIGESTS, DIGESTS)
def test_adding_images_moves_no_image_below_the_threshold_into_the_training_split(first, more):
    by_number = {number: hashlib.sha256(b"%d" % number).digest() for number in first | more}
    below = {number for number, digest in by_number.items() if int.from_bytes(digest[:4]) < 0.2 * 2**32}
    with mock.patch.object(held_out, "content_hash", lambda path: by_number[int(path.name)]):
        before, after = (
            {int(path.name): split for path, split in hold_out(images, ("valid", "test")).items()}
            for images in ([("a", Path(str(number))) for number in numbers] for numbers in (first, first | more))
        )
    assert set(before.values()) == {"train", "valid", "test"}
    moved = {number for number in first if before[number] != "train" and after[number] == "train"}
    if after.keys() - below:  # otherwise one of them has to stay
        assert not moved & below
    assert len(moved - below) <= 2  # held out because there was none below the threshold
