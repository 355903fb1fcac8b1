"""The drawn data set as a whole: the same every time, complete or absent, and never at the cost of anything else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from waiting import wait_until

from sample_data import DrawingError, dataset, draw_data_set
from sample_data.dataset import MARKER


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_SIZE", (64, 96))


def drawn(destination: Path, **changes: object) -> bool:
    arguments: dict = {"breeds": 2, "per_class": (3, 2, 2), "seed": 7} | changes
    return draw_data_set(destination, **arguments)


def images(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}


def interrupt(done: int) -> None:
    raise KeyboardInterrupt


def test_it_has_splits_classes_and_counts_and_no_image_twice(tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []
    assert drawn(tmp_path / "dogs", report=lambda done: seen.append((done, (tmp_path / "dogs").exists())))
    assert seen == [(done, False) for done in range(1, 15)]  # it has its name when it is complete
    for split, count in zip(("train", "valid", "test"), (3, 2, 2), strict=True):
        for label in ("001.Labrador_retriever", "002.Scottish_terrier"):
            assert len(list((tmp_path / "dogs" / split / label).glob("*.jpg"))) == count
    assert len(set(images(tmp_path / "dogs").values())) == 14


def test_the_same_arguments_give_the_same_bytes_in_one_process_or_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    drawn(tmp_path / "one")
    monkeypatch.setattr(dataset, "_WORTH_A_PROCESS", 7)
    drawn(tmp_path / "two")
    assert images(tmp_path / "one") == images(tmp_path / "two")


def test_an_image_depends_on_the_seed_and_not_on_what_else_is_drawn(tmp_path: Path) -> None:
    drawn(tmp_path / "few")
    drawn(tmp_path / "more", breeds=3, per_class=(4, 3, 3))
    drawn(tmp_path / "other", seed=8)
    assert images(tmp_path / "few").items() <= images(tmp_path / "more").items()
    assert not set(images(tmp_path / "few").values()) & set(images(tmp_path / "other").values())


def test_the_same_set_is_not_drawn_twice_and_an_older_one_of_ours_is_replaced_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dogs").mkdir()  # an empty folder is filled
    assert drawn(tmp_path / "dogs")
    before = images(tmp_path / "dogs")
    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path / "dogs", seed=8, report=interrupt)
    assert images(tmp_path / "dogs") == before
    assert not drawn(tmp_path / "dogs", report=interrupt)
    assert drawn(tmp_path / "dogs", per_class=(1, 1, 1))
    assert len(images(tmp_path / "dogs")) == 6
    monkeypatch.setattr(dataset, "_revision", lambda: "of other drawing code")
    assert drawn(tmp_path / "dogs", per_class=(1, 1, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["dogs"]


def folder_of_somebody(path: Path) -> None:
    (path / "train").mkdir(parents=True)
    (path / MARKER).write_text("{}")


def without_a_checksum(path: Path) -> None:
    drawn(path)
    (path / MARKER).write_text('{"drawn_by": "kennel data sample", "breeds": 2, "per_class": [3, 2, 2], "seed": 7}')


def image_added(path: Path) -> None:
    drawn(path)
    (path / "train" / "mine.jpg").write_bytes(b"mine")


def hidden_file_added(path: Path) -> None:
    drawn(path)
    (path / ".labels.csv").write_bytes(b"mine")


def image_removed(path: Path) -> None:
    drawn(path)
    next(path.rglob("*.jpg")).unlink()


def link_to_ours(path: Path) -> None:
    drawn(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("seed", [7, 8])
@pytest.mark.parametrize(
    "occupy",
    [
        *(folder_of_somebody, without_a_checksum, image_added, hidden_file_added, image_removed, link_to_ours),
        lambda path: path.write_bytes(b"mine"),
        lambda path: path.symlink_to("mine"),
    ],
)
def test_whatever_else_is_there_is_left_alone(tmp_path: Path, occupy: Callable[[Path], None], seed: int) -> None:
    occupy(tmp_path / "dogs")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(DrawingError, match="Choose another folder"):
        drawn(tmp_path / "dogs", seed=seed)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_interrupted_or_killed_it_leaves_no_half_set_and_no_process(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path / "dogs", report=interrupt)
    assert list(tmp_path.iterdir()) == []
    program = "import sys; from pathlib import Path; from sample_data import draw_data_set; "
    program += "draw_data_set(Path(sys.argv[1]), breeds=2, per_class=(5000, 1, 1), seed=1)"
    parent = psutil.Popen([sys.executable, "-c", program, str(tmp_path / "dogs")])
    try:
        wait_until(lambda: next(tmp_path.rglob("*.jpg"), None), 120)
        workers = parent.children(recursive=True)
    finally:
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    assert not (tmp_path / "dogs").exists()
