"""Finding, splitting, numbering and decoding a folder-per-class data set, and what makes it unusable."""

from __future__ import annotations

import os
import unicodedata

import pytest
from training_fixtures import write_files

from model.training.data.dataset import discover, display_labels, fingerprint
from model.training.data.image_folder import find
from model.training.data.listing import DataSetError

NFC, NFD = (unicodedata.normalize(form, "Épagneul") for form in ("NFC", "NFD"))
HIDDEN, NO_IMAGE = "hidden or of the system", "no image by its name"
SMALL = ("train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "valid/a/1.jpg", "test/b/1.jpg")


def test_splits_are_kept_classes_numbered_hidden_files_left_out_and_others_named(tmp_path, caplog):
    write_files(tmp_path, "train/a/1.jpg", "train/b/2.PNG", "val/a/3.jpeg", "test/b/deep/4.webp", "train/a/.DS_Store",
         "train/b/notes.txt", ".cache/train/a/1.jpg", "train/README.txt", "train/a/.thumbnails/a.png")  # fmt: skip
    folder = discover(tmp_path)
    keys = {"train/a/1.jpg", "train/b/2.PNG", "valid/a/3.jpeg", "test/b/deep/4.webp"}
    assert ({image.key for image in folder.images}, folder.held_out) == (keys, ())
    targets = {name: split.targets for name, split in folder.splits.items()}
    assert (folder.labels, targets) == (("a", "b"), {"train": (0, 1), "valid": (0,), "test": (1,)})
    assert folder.left_out == {".cache/": HIDDEN, "train/a/.DS_Store": HIDDEN, "train/a/.thumbnails/": HIDDEN,
                               "train/b/notes.txt": NO_IMAGE, "train/README.txt": NO_IMAGE}  # fmt: skip
    assert folder.absent_classes == {"valid": ["b"], "test": ["a"]}
    assert "valid split has no images of 'b'" in caplog.text
    assert "2 left out, no image by its name: train/README.txt, train/b/notes.txt" in caplog.text


def test_names_may_hold_any_alphabet_in_either_unicode_form_but_a_class_must_have_a_name(tmp_path):
    name = os.fsdecode(b"caf\xe9")  # as a zip archive of the 1990s leaves it
    write_files(
        tmp_path / "good", f"train/{NFC}/1.jpg", "train/柴犬/x.jpg", f"train/{NFC}/{name}.jpg", f"valid/{NFD}/2.jpg"
    )
    folder = discover(tmp_path / "good")
    assert folder.splits["valid"].targets == (0,)
    assert fingerprint(folder).digest.startswith("sha256:")
    with pytest.raises(DataSetError, match=r"caf\\udce9' is not a name in UTF-8 .* rename the folder"):
        discover(write_files(tmp_path / "bad", *SMALL, f"train/{name}/1.jpg"))
    with pytest.raises(DataSetError, match=r"'a\\nb' is not a name"):
        discover(write_files(tmp_path / "lines", *SMALL, "train/a\nb/1.jpg"))


def test_a_plain_folder_per_class_is_split_by_content(tmp_path):
    write_files(tmp_path, *[f"{label}/{number}.jpg" for label in ("a", "b") for number in range(30)])
    (write_files(tmp_path, "a/copies/0.jpg") / "a/copies/0.jpg").write_bytes(b"a/0.jpg")
    by_content: dict[bytes, set[str]] = {}
    for image in find(tmp_path).images:
        by_content.setdefault(image.path.read_bytes(), set()).add(image.split)
    assert all(len(splits) == 1 for splits in by_content.values())
    for path in sorted(tmp_path.rglob("*.jpg")):  # other names, same bytes: the same split
        path.rename(path.with_name("renamed-" + path.name))
    assert all({image.split} == by_content[image.path.read_bytes()] for image in find(tmp_path).images)


@pytest.mark.parametrize(
    ("files", "complaints"),
    [
        ([], ["no images"]),
        (["train/a/1.jpg", "train/b/1.jpg", "valid/a/1.txt"], ["no images in valid/"]),
        ([*SMALL, "train/c/1.svg"], ["no images in train/c/: a class would be lost"]),
        (["train/a/1.jpg", "train/b/1.jpg", "valid/c/1.jpg"], ["valid/ has classes that train/ lacks: 'c'"]),
        ([f"train/{NFC}/1.jpg", f"train/{NFD}/1.jpg", "train/b/1.jpg", "valid/b/1.jpg"], ["would be one image"]),
        (["train/a/1.jpg", "valid/b/1.jpg", "test/c/1.jpg"], ["one class only", "'b'", "'c'"]),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_all_reasons(tmp_path, files, complaints):
    problems = find(write_files(tmp_path, *files)).problems()
    assert len(problems) == len(complaints)
    assert all(complaint in problem for complaint, problem in zip(complaints, problems, strict=True))


def test_what_cannot_even_be_listed_is_refused(tmp_path):
    for place, names, complaint in (
        ("none", [], r"There is no data set at .*none.*DIR/train/<class>"),
        ("few", ["few/a/1.jpg", "few/a/2.jpg", "few/a/3.jpg", "few/b/1.jpg"], "'b' has 1 different images"),
        ("two", ["two/train/a/1.jpg", "two/valid/a/1.jpg", "two/val/a/1.jpg"], "are both the valid split"),
        ("tests", ["tests/test/a/1.jpg", "tests/valid/a/1.jpg"], "tests has test, valid, but no train/"),
        ("around", ["around/dogs/train/a/1.jpg", "around/dogs/val/b/1.jpg"], "The data set is in .*around/dogs"),
        ("beside", ["beside/x/train/a/1.jpg", "beside/x/val/b/1.jpg", "beside/y/1.jpg"], "The data set is in .*/x:"),
        ("nested", ["nested/train/train/a/1.jpg", "nested/train/valid/a/1.jpg"], "The data set is in .*/nested/train"),
        ("inner", [f"inner/{each}/1.jpg" for each in ("a/test", "a/train", "b/test", "b/train")], "In a, b .* splits"),
        ("files", ["files/train/1.jpg", "files/test/1.jpg"], "no class folders, in test, train of"),
        ("both", ["both/train/a/1.jpg", "both/bus/1.jpg"], "two ways: train has folders .* in bus beside it"),
    ):
        with pytest.raises(DataSetError, match=complaint):
            find(write_files(tmp_path, *names) / place)


def test_labels_are_shown_as_people_read_them_and_stay_distinct():
    shown = display_labels(["001.Carolina_dog", "Épagneul breton", "12.x", "123.", "007.a_b c"])
    assert shown == ["Carolina dog", "Épagneul breton", "12.x", "123.", "a b c"]
    assert display_labels(["001.Dog", "002.Dog", "003.Cat"]) == ["001.Dog", "002.Dog", "Cat"]


def test_a_fingerprint_is_of_the_content_and_not_of_the_place_and_names_what_leaks(tmp_path, caplog):
    def digest(place: str, *names: str) -> str:
        return fingerprint(discover(write_files(tmp_path / place, *names))).digest

    first = digest("1", *SMALL)
    assert digest("elsewhere", *SMALL) == first
    found = {first, digest("2", *SMALL, "train/a/3.jpg"), digest("3", *SMALL[1:])}
    (tmp_path / "1" / SMALL[4]).write_bytes(b"train/a/1.jpg")
    changed = fingerprint(discover(tmp_path / "1"))
    copies = ["test/b/1.jpg"]
    assert changed.copies == {"also_in_training": copies, "also_in_valid": [], "in_two_classes": copies}
    assert "test/b/1.jpg" in caplog.text
    (tmp_path / "1" / SMALL[4]).write_bytes(b"valid/a/1.jpg")
    assert fingerprint(discover(tmp_path / "1")).copies["also_in_valid"] == ["test/b/1.jpg"]
    (tmp_path / "1" / SMALL[1]).rename(tmp_path / "1" / "train" / "b" / "2.jpg")  # to another class
    assert len(found | {changed.digest, fingerprint(discover(tmp_path / "1")).digest}) == 5
