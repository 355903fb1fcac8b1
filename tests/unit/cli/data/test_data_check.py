"""`kennel data check` finds what spoils a data set, and says which of it makes it unusable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from training_fixtures import LABELS, write_data_set

from cli.data.check import Check, check_data_set
from cli.data.dataset import find_data_set

DISC, BAR, PLAIN = LABELS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_data_set(tmp_path / "dogs", train=12, valid=2, test=2)


def check(root: Path) -> Check:
    return check_data_set(find_data_set(root))


def test_a_good_set_has_nothing_to_complain_of(root: Path) -> None:
    found = check(root)
    assert found.problems == found.warnings == []
    assert found.counts == {label: {"train": 12, "valid": 2, "test": 2} for label in LABELS}


def test_what_is_unreadable_here_has_a_reason_and_is_what_training_leaves_out(root: Path) -> None:
    from model.training.data.dataset import discover
    from model.training.data.decoded import load, whole_image

    for number, damage in enumerate([slice(0, 40), slice(0, 0), slice(1, None), slice(0, -40)]):
        path = root / "train" / DISC / f"{number:03d}.png"
        path.write_bytes(path.read_bytes()[damage])
    loaded = load(discover(root), "train", lambda image: whole_image(image, 32), 32, 32, threads=1)
    found = check(root)
    assert sorted(found.unreadable) == sorted(loaded.skipped)
    assert "0 bytes" in found.unreadable[f"train/{DISC}/001.png"]
    assert found.warnings[0].startswith(f"{len(loaded.skipped)} pictures cannot be read")


@pytest.mark.parametrize(
    ("copy", "splits", "classes", "repeated"),
    [(f"test/{DISC}/renamed.png", 1, 0, 0), (f"train/{PLAIN}/other.png", 0, 1, 0), (f"train/{DISC}/copy.png", 0, 0, 1)],
)
def test_the_same_image_twice_is_found_under_any_name(
    root: Path, copy: str, splits: int, classes: int, repeated: int
) -> None:
    shutil.copy(root / "train" / DISC / "000.png", root / copy)
    found, group = check(root), sorted([copy, f"train/{DISC}/000.png"])
    assert found.in_several_splits == [group] * splits
    assert found.in_several_classes == [group] * classes
    assert found.repeated == repeated
    assert len(found.warnings) == 1


@pytest.mark.parametrize(
    ("removed", "told"),
    [
        (f"valid/{BAR}/*", ["valid/", BAR]),
        (f"test/{DISC}/*", ["test/", DISC]),
        ("test/*/*", ["no test/ split"]),
        (f"train/{PLAIN}/*[1-9].png", ["Fewer than 10", PLAIN]),
    ],
)
def test_what_makes_a_model_worse_is_a_warning(root: Path, removed: str, told: list[str]) -> None:
    for path in root.glob(removed):
        path.unlink()
    found = check(root)
    assert found.problems == []
    assert any(all(word in warning for word in told) for warning in found.warnings)


def test_json_is_all_that_is_on_standard_output(kennel, root: Path) -> None:
    (root / "valid" / BAR / "notes.txt").write_text("ü")
    code, out, _ = kennel("check", str(root), "--json")
    document = json.loads(out)
    assert (code, document["usable"], document["not_images"]) == (0, True, [f"valid/{BAR}/notes.txt"])


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_an_unusable_set_ends_with_exit_code_3(kennel, root: Path, option: list[str]) -> None:
    shutil.rmtree(root / "valid")
    code, out, err = kennel("check", str(root), *option)
    assert code == 3
    assert "no pictures in valid/" in out
    assert "cannot be used" in err


def test_a_push_refuses_an_unusable_set_before_it_looks_for_aws(
    kennel, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for path in (root / "train" / PLAIN).iterdir():
        path.write_bytes(b"x")
    code, _, err = kennel("push", str(root))
    assert code == 3
    assert PLAIN in err
