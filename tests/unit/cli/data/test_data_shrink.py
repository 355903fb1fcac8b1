"""A shrunk copy has smaller images that show the same, and only what is missing is done again."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.data.dataset import find_data_set, read_data_set
from cli.data.shrink import Shrunk, shrink_data_set
from cli.errors import NotReadyError
from model.core.decoding import decode


def image_of(width: int, height: int, format: str = "JPEG", *, quality: int = 95, orientation: int = 1) -> bytes:
    """A smooth image whose four corners have different colours."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    ripple = 20 * np.sin(40 * x) * np.sin(30 * y)
    pixels = np.stack([200 * x + ripple, 200 * y + ripple, 100 + 50 * x * y], axis=2).clip(0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    options = {"quality": quality, "exif": exif} if format == "JPEG" else {}
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    large = image_of(320, 240)
    for name in ("train/a/1.jpg", "train/b ü/1.jpg", "valid/a/1.jpg", "test/b ü/deep/1.jpg"):
        path = tmp_path / "dogs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(large)
    return tmp_path / "dogs"


def shrink(root: Path, **options: int) -> Shrunk:
    return shrink_data_set(find_data_set(root), root.with_name("small"), **{"side": 64, **options})


def shown(path: Path) -> Image.Image:
    return decode(path.read_bytes())


def difference(one: Image.Image, other: Image.Image) -> float:
    size = (16, 16)
    return float(np.abs(np.asarray(one.resize(size), float) - np.asarray(other.resize(size), float)).mean())


def test_the_shorter_side_becomes_what_was_asked_for(root: Path, tmp_path: Path) -> None:
    result = shrink(root)
    small = tmp_path / "small"
    assert {image.key for image in read_data_set(small).images} == {image.key for image in read_data_set(root).images}
    assert shown(small / "train/a/1.jpg").size == (85, 64)
    assert difference(shown(small / "train/a/1.jpg"), shown(root / "train/a/1.jpg")) < 3
    assert (result.shrunk, result.unchanged, result.kept) == (4, 0, 0)
    assert result.bytes_before == 4 * (root / "train/a/1.jpg").stat().st_size
    assert result.bytes_after == sum(found.path.stat().st_size for found in read_data_set(small).images)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_the_camera_noted_is_applied_once(root: Path, tmp_path: Path, orientation: int) -> None:
    path = root / "train/a/1.jpg"
    path.write_bytes(image_of(320, 240, orientation=orientation))
    shrink(root)
    copy = tmp_path / "small/train/a/1.jpg"
    assert difference(shown(copy), shown(path)) < 3
    assert Image.open(copy).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(
    "content",
    [
        *(image_of(*size, orientation=6) for size in [(64, 64), (64, 500), (30, 20), (1, 900)]),
        image_of(70, 66, quality=5),  # shrunk it would be a larger file
    ],
    ids=len,
)
def test_small_images_are_copied_byte_for_byte(root: Path, tmp_path: Path, content: bytes) -> None:
    (root / "train/a/1.jpg").write_bytes(content)
    assert shrink(root).unchanged == 1
    assert (tmp_path / "small/train/a/1.jpg").read_bytes() == content


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_other_formats_become_jpegs_under_a_name_of_their_own(root: Path, tmp_path: Path, format: str) -> None:
    name = f"1.{format.lower()}"
    (root / "train/a" / name).write_bytes(image_of(320, 240, format))
    shrink(root)
    copy = tmp_path / "small/train/a" / f"{name}.jpg"
    assert Image.open(copy).format == "JPEG"
    assert difference(shown(copy), shown(root / "train/a" / name)) < 3
    assert shrink(root).kept == 5


def test_images_that_would_get_the_same_name_are_refused(root: Path, tmp_path: Path) -> None:
    for name in ("x.png", "x.png.jpg"):
        (root / "train/a" / name).write_bytes(image_of(320, 240, "PNG"))
    with pytest.raises(NotReadyError, match="which is there, too"):
        shrink(root)
    assert not (tmp_path / "small").exists()


def test_unreadable_images_are_left_out_with_their_reasons(root: Path, tmp_path: Path) -> None:
    (root / "train/a/2.jpg").write_bytes(b"junk")
    result = shrink(root)
    assert list(result.unreadable) == ["train/a/2.jpg"]
    assert result.shrunk == 4
    assert not (tmp_path / "small/train/a/2.jpg").exists()


def test_an_image_that_vanishes_meanwhile_is_left_out_and_not_taken_for_a_full_disk(root: Path) -> None:
    found = find_data_set(root)
    (root / "train/a/1.jpg").unlink()
    result = shrink_data_set(found, root.with_name("small"), side=64)
    assert result.unreadable == {"train/a/1.jpg": "It cannot be read: No such file or directory."}
    assert result.shrunk == 3


def test_a_set_without_splits_keeps_the_split_of_the_originals(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for number in range(10):
            path = tmp_path / "dogs" / label / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image_of(100 + number, 80))
    shrink(tmp_path / "dogs")
    copy = read_data_set(tmp_path / "small")
    assert not copy.was_split
    assert {found.key for found in copy.images} == {found.key for found in read_data_set(tmp_path / "dogs").images}


def test_a_second_run_only_does_what_changed(root: Path, tmp_path: Path) -> None:
    shrink(root)
    assert shrink(root).kept == 4
    (root / "train/a/1.jpg").write_bytes(image_of(240, 320))
    (root / "train/a/new.jpg").write_bytes(image_of(320, 240))
    (root / "valid/a/1.jpg").rename(root / "valid/a/2.jpg")
    result = shrink(root)
    assert (result.kept, result.shrunk) == (2, 3)
    assert shown(tmp_path / "small/train/a/1.jpg").size == (64, 85)
    assert {found.key for found in read_data_set(tmp_path / "small").images} == {
        found.key for found in read_data_set(root).images
    }


def test_interrupted_nothing_has_the_name_and_the_next_run_goes_on(root: Path, tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shrink_data_set(find_data_set(root), tmp_path / "small", side=64, report=interrupt, threads=1)
    assert not (tmp_path / "small").exists()
    unfinished = tmp_path / ".small.shrinking"
    half = unfinished / "train/a/.x.jpg.new"  # as a killed run leaves one
    half.write_bytes(b"half")
    result = shrink(root)
    assert result.kept >= 2
    assert result.kept + result.shrunk == 4
    assert not list((tmp_path / "small").rglob("*.new"))
    assert not unfinished.exists()


def test_somebody_elses_folder_is_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small/mine.txt").write_text("mine")
    with pytest.raises(NotReadyError, match="left alone"):
        shrink(root)
    assert (tmp_path / "small/mine.txt").read_text() == "mine"


def test_a_copy_of_another_size_is_neither_overwritten_nor_taken_over(root: Path, tmp_path: Path) -> None:
    shrink(root, side=32)
    with pytest.raises(NotReadyError, match="was shrunk to"):
        shrink(root, side=64)
    (tmp_path / "small").rename(tmp_path / ".small.shrinking")
    assert shrink(root, side=64).kept == 0
    assert shown(tmp_path / "small/train/a/1.jpg").size == (85, 64)


@pytest.mark.parametrize("place", [".", "small", ".."])
def test_the_copy_must_lie_beside_the_original(root: Path, place: str) -> None:
    with pytest.raises(NotReadyError, match="would mix"):
        shrink_data_set(find_data_set(root), root / place, side=64)
    assert len(find_data_set(root).images) == 4
