"""`kennel data check` finds what spoils a data set, and says which of it makes it unusable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from training_fixtures import LABELS, write_data_set

from cli import main
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
    assert found.usable
    assert found.warnings == []
    assert found.counts == {label: {"train": 12, "valid": 2, "test": 2} for label in LABELS}


def test_images_that_cannot_be_decoded_are_listed_with_reasons(root: Path) -> None:
    whole = (root / "train" / DISC / "000.png").read_bytes()
    (root / "train" / DISC / "000.png").write_bytes(whole[: len(whole) // 2])
    (root / "valid" / BAR / "000.png").write_bytes(b"")
    (root / "test" / BAR / "000.png").write_text("no picture")
    found = check(root)
    assert found.usable
    assert sorted(found.unreadable) == [f"test/{BAR}/000.png", f"train/{DISC}/000.png", f"valid/{BAR}/000.png"]
    assert "0 bytes" in found.unreadable[f"valid/{BAR}/000.png"]
    assert "damaged" in found.unreadable[f"train/{DISC}/000.png"]
    assert found.warnings[0].startswith("3 pictures cannot be read")


def test_what_is_unreadable_here_is_what_training_leaves_out(root: Path) -> None:
    from model.training.data.dataset import discover
    from model.training.data.decoded import load, whole_image

    for number, damage in enumerate([slice(0, 40), slice(0, 0), slice(1, None), slice(0, -40)]):
        path = root / "train" / DISC / f"{number:03d}.png"
        path.write_bytes(path.read_bytes()[damage])
    loaded = load(discover(root), "train", lambda image: whole_image(image, 32), 32, 32, threads=1)
    assert sorted(check(root).unreadable) == sorted(loaded.skipped)
    assert len(loaded.skipped) >= 3


def test_the_same_image_in_two_splits_is_found_under_any_name(root: Path) -> None:
    shutil.copy(root / "train" / DISC / "000.png", root / "test" / DISC / "renamed.png")
    shutil.copy(root / "train" / DISC / "001.png", root / "train" / DISC / "copy.png")
    found = check(root)
    assert found.in_several_splits == [[f"test/{DISC}/renamed.png", f"train/{DISC}/000.png"]]
    assert found.in_several_classes == []
    assert found.repeated == 1
    assert any("renamed.png" in warning and "several splits" in warning for warning in found.warnings)


def test_the_same_image_in_two_classes_is_found(root: Path) -> None:
    shutil.copy(root / "train" / DISC / "000.png", root / "train" / PLAIN / "other.png")
    found = check(root)
    assert found.in_several_classes == [[f"train/{DISC}/000.png", f"train/{PLAIN}/other.png"]]
    assert found.in_several_splits == []
    assert found.repeated == 0


def test_unreadable_images_are_no_duplicates(root: Path) -> None:
    for split in ("train", "test"):
        (root / split / DISC / "000.png").write_bytes(b"")
    assert check(root).in_several_splits == []


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
    assert found.usable
    assert any(all(word in warning for word in told) for warning in found.warnings)


def test_a_class_of_unreadable_training_pictures_is_a_problem(root: Path) -> None:
    for path in (root / "train" / PLAIN).iterdir():
        path.write_bytes(b"x")
    found = check(root)
    assert not found.usable
    assert PLAIN in found.problems[0]


@pytest.fixture
def kennel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["kennel", "data", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


def test_json_is_all_that_is_on_standard_output(kennel, root: Path) -> None:
    (root / "valid" / BAR / "notes.txt").write_text("ü")
    code, out, _ = kennel("check", str(root), "--json")
    document = json.loads(out)
    assert code == 0
    assert document["usable"] is True
    assert document["not_images"] == [f"valid/{BAR}/notes.txt"]
    assert document["counts"][DISC]["train"] == 12


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_an_unusable_set_ends_with_exit_code_3(kennel, root: Path, option: list[str]) -> None:
    shutil.rmtree(root / "valid")
    code, out, err = kennel("check", str(root), *option)
    assert code == 3
    assert "no pictures in valid/" in out
    assert "cannot be used" in err


def test_warnings_leave_the_exit_code_alone_and_name_the_images(kennel, root: Path) -> None:
    (root / "train" / DISC / "[bold]x.png").write_bytes(b"x")  # no markup of ours
    code, out, _ = kennel("check", str(root))
    assert code == 0
    assert f"train/{DISC}/[bold]x.png" in out


def test_a_push_refuses_an_unusable_set_before_it_looks_for_aws(
    kennel, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for path in (root / "train" / PLAIN).iterdir():
        path.write_bytes(b"x")
    code, _, err = kennel("push", str(root))
    assert code == 3
    assert PLAIN in err
