"""The drawn data set as a whole: the same every time, complete or absent, and never at the cost of anything else."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image

from sample_data import BREEDS, DrawingError, Summary, draw_data_set
from sample_data.dataset import MARKER

TWO = ["Pug", "Dachshund"]
SMALL = (64, 96)


def drawn(destination: Path, **changes: object) -> Summary:
    arguments: dict = {"breeds": TWO, "per_class": (3, 2, 2), "size": SMALL, "seed": 7, "workers": 1} | changes
    return draw_data_set(destination, **arguments)


def eventually(holds: Callable[[], bool], timeout: float = 120.0) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def pictures(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name != MARKER}


def test_lays_out_splits_classes_and_counts(tmp_path: Path) -> None:
    summary = drawn(tmp_path / "dogs")
    assert summary.classes == ("005.Pug", "008.Dachshund")
    assert summary.pictures == 14
    for split, count in zip(("train", "valid", "test"), (3, 2, 2), strict=True):
        assert sorted(folder.name for folder in (tmp_path / "dogs" / split).iterdir()) == list(summary.classes)
        for folder in (tmp_path / "dogs" / split).iterdir():
            assert len(list(folder.glob("*.jpg"))) == count


def test_every_file_is_a_jpeg_of_the_size_asked_for(tmp_path: Path) -> None:
    drawn(tmp_path / "dogs", per_class=(12, 2, 2))
    shapes = set()
    for path in (tmp_path / "dogs").rglob("*.jpg"):
        with Image.open(path) as picture:
            picture.load()
            assert (picture.format, picture.mode) == ("JPEG", "RGB")
            assert SMALL[0] <= max(picture.size) <= SMALL[1]
            shapes.add((picture.width > picture.height) - (picture.width < picture.height))
    assert shapes == {-1, 0, 1}, "landscape, square and portrait formats should all occur"


def test_same_seed_same_bytes_whatever_the_number_of_workers(tmp_path: Path) -> None:
    one, two = drawn(tmp_path / "one", workers=1), drawn(tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert one.digest == two.digest


def test_another_seed_gives_other_pictures(tmp_path: Path) -> None:
    drawn(tmp_path / "one")
    drawn(tmp_path / "two", seed=8)
    assert not set(pictures(tmp_path / "one").values()) & set(pictures(tmp_path / "two").values())


def test_a_picture_does_not_depend_on_what_else_is_drawn(tmp_path: Path) -> None:
    drawn(tmp_path / "few")
    drawn(tmp_path / "more", breeds=["Pug", "Poodle", "Dachshund"], per_class=(4, 3, 3))
    assert pictures(tmp_path / "few").items() <= pictures(tmp_path / "more").items()


def test_no_picture_occurs_twice_in_the_whole_set(tmp_path: Path) -> None:
    drawn(tmp_path / "dogs", per_class=(20, 10, 10))
    digests = [hashlib.sha256(data).hexdigest() for data in pictures(tmp_path / "dogs").values()]
    assert len(digests) == len(set(digests)) == 80


def test_progress_counts_up_to_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    drawn(tmp_path / "dogs", progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (14, 14)
    assert {total for _, total in seen} == {14}


def test_the_same_set_is_not_drawn_twice(tmp_path: Path) -> None:
    first = drawn(tmp_path / "dogs")
    seen: list[int] = []
    second = drawn(tmp_path / "dogs", progress=lambda done, total: seen.append(done))
    assert (first.reused, second.reused) == (False, True)
    assert second.digest == first.digest
    assert not seen


def test_our_own_older_set_is_replaced_whole(tmp_path: Path) -> None:
    drawn(tmp_path / "dogs", breeds=["Pug", "Poodle"])
    drawn(tmp_path / "dogs")
    drawn(tmp_path / "fresh")
    assert contents(tmp_path / "dogs") == contents(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dogs", "fresh"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "dogs").mkdir()
    assert drawn(tmp_path / "dogs").pictures == 14


def foreign_folder(path: Path) -> None:
    (path / "train" / "Pug").mkdir(parents=True)
    (path / "train" / "Pug" / "mine.jpg").write_bytes(b"irreplaceable")


def claims_to_be_ours(path: Path) -> None:
    foreign_folder(path)
    (path / MARKER).write_text('{"drawn_by": "kennel data sample", "recipe": {}, "digest": "0"}')


def unreadable_marker(path: Path) -> None:
    foreign_folder(path)
    (path / MARKER).write_text('["not what we write"]')


def picture_added(path: Path) -> None:
    drawn(path)
    (path / "train" / "005.Pug" / "mine.jpg").write_bytes(b"irreplaceable")


def picture_changed(path: Path) -> None:
    drawn(path)
    (path / "train" / "005.Pug" / "Pug_0001.jpg").write_bytes(b"irreplaceable")


def picture_removed(path: Path) -> None:
    drawn(path)
    (path / "train" / "005.Pug" / "Pug_0001.jpg").unlink()


def plain_file(path: Path) -> None:
    path.write_bytes(b"irreplaceable")


def link_to_ours(path: Path) -> None:
    drawn(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    "occupy",
    [
        foreign_folder,
        claims_to_be_ours,
        unreadable_marker,
        picture_added,
        picture_changed,
        picture_removed,
        plain_file,
        link_to_ours,
    ],
)
def test_whatever_else_is_there_is_left_alone(tmp_path: Path, occupy) -> None:
    occupy(tmp_path / "dogs")
    before = contents(tmp_path)
    with pytest.raises(DrawingError, match="Choose another folder"):
        drawn(tmp_path / "dogs", seed=8)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_drawing_leaves_nothing(tmp_path: Path, workers: int) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path / "dogs", per_class=(40, 2, 2), workers=workers, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_workers_end_when_the_drawing_process_is_killed(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from sample_data import draw_data_set; "
    program += "draw_data_set(Path(sys.argv[1]), breeds=2, per_class=(5000, 1, 1), workers=2)"
    parent = psutil.Popen([sys.executable, "-c", program, str(tmp_path / "dogs")])
    try:
        eventually(lambda: next(tmp_path.rglob("*.jpg"), None) is not None)
        workers = parent.children(recursive=True)
        assert len(workers) >= 2
    finally:
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    assert not (tmp_path / "dogs").exists()


def test_an_interrupted_replacement_keeps_the_old_set(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    drawn(tmp_path / "dogs")
    before = contents(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path / "dogs", seed=8, progress=interrupt)
    assert contents(tmp_path) == before


def test_a_half_drawn_set_never_has_the_name_of_a_whole_one(tmp_path: Path) -> None:
    seen: list[bool] = []
    drawn(tmp_path / "dogs", progress=lambda done, total: seen.append((tmp_path / "dogs").exists()))
    assert seen
    assert not any(seen)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DrawingError, match=r"Cannot write beside .*file/dogs"):
        drawn(tmp_path / "file" / "dogs")


def test_all_bad_numbers_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(DrawingError) as caught:
        drawn(tmp_path / "dogs", per_class=(3, 0, 2), size=(300, 200), seed=-1, workers=0)
    for complaint in ("(3, 0, 2)", "48 to 1024", "(300, 200)", "not -1", "1 worker"):
        assert complaint in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("breeds", [0, 1, len(BREEDS) + 1, -3])
def test_too_few_or_too_many_breeds_are_refused(tmp_path: Path, breeds: int) -> None:
    with pytest.raises(DrawingError, match=str(len(BREEDS))):
        drawn(tmp_path / "dogs", breeds=breeds)


def test_an_unknown_breed_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DrawingError, match=r"No such breed: Unicorn\. .*Greyhound"):
        drawn(tmp_path / "dogs", breeds=["Pug", "Unicorn"])


def test_one_breed_named_twice_is_not_two(tmp_path: Path) -> None:
    with pytest.raises(DrawingError, match="at least 2"):
        drawn(tmp_path / "dogs", breeds=["Pug", "Pug"])
