"""`kennel data check` finds what spoils a data set, and says which of it makes it unusable."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from training_fixtures import LABELS, draw, write_data_set

from cli.data.check import check_data_set
from cli.data.dataset import find_data_set
from model.core.transforms import Preprocessing
from model.training.data.dataset import discover
from model.training.data.decoded import decode_for_serving

DISC, BAR, PLAIN = LABELS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_data_set(tmp_path / "dogs", train=12, valid=2, test=2)


def test_what_is_unreadable_here_has_a_reason_and_is_what_training_leaves_out(root: Path) -> None:
    for number, damage in enumerate([slice(0, 40), slice(0, 0), slice(1, None), slice(0, -40)]):
        path = root / "train" / DISC / f"{number:03d}.png"
        path.write_bytes(path.read_bytes()[damage])
    loaded = decode_for_serving(discover(root).splits["train"], Preprocessing(32, 32), 1)
    found = check_data_set(find_data_set(root))
    assert sorted(found.unreadable) == sorted(loaded.skipped)
    assert "0 bytes" in found.unreadable[f"train/{DISC}/001.png"]
    assert found.warnings[0].startswith(f"{len(loaded.skipped)} images cannot be read")


@pytest.mark.parametrize(
    ("copy", "told"),
    [
        (f"test/{DISC}/renamed.png", "in several splits"),
        (f"train/{PLAIN}/other.png", "in several classes"),
        (f"train/{DISC}/copy.png", "in their class more than once"),
    ],
)
def test_the_same_image_twice_is_found_under_any_name(root: Path, copy: str, told: str) -> None:
    shutil.copy(root / "train" / DISC / "000.png", root / copy)
    found = check_data_set(find_data_set(root))
    assert found.copies == [sorted([copy, f"train/{DISC}/000.png"])]
    assert [told in warning for warning in found.warnings] == [True]


@pytest.mark.parametrize(
    ("removed", "told"),
    [
        (f"valid/{BAR}/*", ["valid/", BAR]),
        ("test/*/*", ["no test/ split"]),
        (f"train/{PLAIN}/*[1-9].png", ["Fewer than 10", PLAIN]),
    ],
)
def test_what_makes_a_model_worse_is_a_warning(root: Path, removed: str, told: list[str]) -> None:
    for path in root.glob(removed):
        path.unlink()
    found = check_data_set(find_data_set(root))
    assert found.problems == []
    assert any(all(word in warning for word in told) for warning in found.warnings)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (f"train/{BAR}/" + os.fsdecode(b"caf\xe9.png"), "push refuses"),
        (f"train/{BAR}/a\nb.png", rf"(train/{BAR}/a\nb.png) not UTF-8, or with control"),
        (f"train/{BAR}/000.PNG", "in several forms"),
        (f"train/{PLAIN.upper()}/new.png", "train/PLAIN/ = train/plain/"),
        (f"train/{BAR}.png", f"1 left out, an image in no class folder: train/{BAR}.png"),
        (f"train/{BAR}/@eaDir/1.png", f"1 left out, hidden or of the system: train/{BAR}/@eaDir/"),
    ],
)
def test_names_that_lose_an_image_elsewhere_and_what_is_left_out_are_named(root: Path, place: str, told: str) -> None:
    (root / place).parent.mkdir(exist_ok=True)
    (root / place).write_bytes(draw(1, 99))
    found = check_data_set(find_data_set(root))
    assert any(told in warning for warning in found.warnings)


def test_json_is_all_that_is_printed(kennel, root: Path) -> None:
    (root / "valid" / BAR / "notes.txt").write_text("ü")
    code, output = kennel("data", "check", str(root), "--json")
    document = json.loads(output)
    assert (code, document["usable"]) == (0, True)
    assert document["left_out"] == {f"valid/{BAR}/notes.txt": "no image by its name"}


@pytest.mark.parametrize("command", ["check", "shrink", "push"])
@pytest.mark.parametrize(("method", "named"), [("read_bytes", ".png"), ("iterdir", "dogs")])
def test_what_cannot_be_read_is_named_with_exit_code_3(kennel, root, command, method, named, monkeypatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, method, refuse)
    code, output = kennel("data", command, str(root))
    assert (code, f"{named} cannot be read: Permission denied. Make it readable" in output) == (3, True)


@pytest.mark.parametrize("command", [["check"], ["check", "--json"], ["push"]])
def test_an_unusable_set_ends_with_exit_code_3_before_aws_is_looked_for(kennel, root, command, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for path in (root / "train" / PLAIN).iterdir():
        path.write_bytes(b"x")
        path.rename(path.with_suffix(".heic"))
    code, output = kennel("data", *command, str(root))
    assert code == 3
    assert "No training image can be read of 1 class (plain); the first: train/plain/000.heic: " in output
