"""A shrunk copy has smaller images that show the same, complete or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat
from serving_fixtures import encode

from cli.data.dataset import find_data_set, read_data_set, whole_folder
from cli.data.shrink import Shrunk, shrink_data_set
from cli.errors import NotReadyError
from model.core.decoding import decode


def image_of(width: int, height: int, format: str = "JPEG", *, quality: int = 95, orientation: int = 1) -> bytes:
    """A smooth image whose four corners have different colours."""
    exif, gradient = Image.Exif(), Image.linear_gradient("L")
    exif[0x0112] = orientation
    image = Image.merge("RGB", [gradient, gradient.rotate(90), Image.radial_gradient("L")]).resize((width, height))
    return encode(image, format, **({"quality": quality, "exif": exif} if format == "JPEG" else {}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Of ten images of each class, without splits."""
    for label in ("a", "b ü"):
        for number in range(10):
            path = tmp_path / "dogs" / label / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image_of(320 + number, 240))
    return tmp_path / "dogs"


def shrink(root: Path) -> Shrunk:
    return shrink_data_set(find_data_set(root), root.with_name("small"), side=64)


def the_copy_of(root: Path, content: bytes, name: str = "1.jpg") -> Path:
    (root / "a/1.jpg").unlink()
    (root / "a" / name).write_bytes(content)
    shrink(root)
    (copy,) = root.with_name("small").glob(f"*/a/{name}*")
    return copy


def test_the_shorter_side_becomes_what_was_asked_for_and_the_split_stays(root: Path) -> None:
    (root / "a/damaged.jpg").write_bytes(b"junk")
    result, copy = shrink(root), read_data_set(root.with_name("small"))
    assert copy.held_out == ()
    assert len(copy.images) == 20
    assert {min(decode(image.path.read_bytes()).size) for image in copy.images} == {64}
    assert list(result.unreadable) == ["a/damaged.jpg"]
    assert result.bytes_after == sum(image.path.stat().st_size for image in copy.images)


@pytest.mark.parametrize(("name", "orientation"), [("1.png", 1), ("1.tiff", 1), ("1.jpg", 3), ("1.jpg", 6)])
def test_any_format_becomes_an_upright_jpeg_that_shows_the_same(root: Path, name: str, orientation: int) -> None:
    content = image_of(320, 240, name[2:].replace("jpg", "jpeg").upper(), orientation=orientation)
    copy = the_copy_of(root, content, name)
    assert copy.name == (name if name.endswith(".jpg") else f"{name}.jpg")
    assert Image.open(copy).format == "JPEG"
    assert Image.open(copy).getexif().get(0x0112, 1) == 1
    shown, original = (decode(each).resize((16, 16)) for each in (copy.read_bytes(), content))
    assert max(ImageStat.Stat(ImageChops.difference(shown, original)).mean) < 3


@pytest.mark.parametrize(
    "content",
    [
        *(image_of(*size, orientation=6) for size in [(64, 64), (1, 900)]),
        image_of(70, 66, quality=5),  # shrunk it would be a larger file
    ],
    ids=len,
)
def test_small_images_are_copied_byte_for_byte(root: Path, content: bytes) -> None:
    assert the_copy_of(root, content).read_bytes() == content


def test_a_small_image_loses_what_makes_its_file_large(root: Path) -> None:
    copy = the_copy_of(root, image_of(60, 900, orientation=6) + bytes(2**20))
    assert (copy.stat().st_size < 2**20, decode(copy.read_bytes()).size) == (True, (900, 60))


@pytest.mark.parametrize("content", [{}, {"1.heic": b"HEIC", "2.jpg": b"", "3.jpg": b"x"}])
def test_a_class_is_not_lost_on_the_way(kennel, root: Path, content: dict[str, bytes]) -> None:
    (root / "lost").mkdir()
    for name, data in content.items():
        (root / "lost" / name).write_bytes(data)
    code, output = kennel("data", "shrink", str(root), str(root.with_name("small")))
    assert (code, "lost" in output, root.with_name("small").exists()) == (3, True, False)


def test_interrupted_or_killed_nothing_changes_and_an_earlier_copy_is_replaced(root: Path, tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    for before in (["dogs"], ["dogs", "small"]):
        with pytest.raises(KeyboardInterrupt):
            shrink_data_set(find_data_set(root), tmp_path / "small", side=64, report=interrupt)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        left = tmp_path / ".small.unfinished/new/train/a"  # by a killed run
        left.mkdir(parents=True)
        (left / "half.jpg").touch()
        shrink(root)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["dogs", "small"]
        assert len(read_data_set(tmp_path / "small").images) == 20
    (root / "a/1.jpg").write_bytes(image_of(240, 320))
    shrink(root)
    (copy,) = (tmp_path / "small").glob("*/a/1.jpg")
    assert decode(copy.read_bytes()).size == (64, 85)


def test_a_folder_whose_successor_never_came_has_its_name_again(tmp_path: Path) -> None:
    old = tmp_path / ".small.unfinished" / "old"  # a run was killed between its two renames
    old.mkdir(parents=True)
    (old / "letter").touch()
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "small"):
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["letter", "small"]


@pytest.mark.parametrize("place", [".", "small", "..", "../mine"])
def test_nothing_but_an_earlier_copy_is_replaced(root: Path, place: str) -> None:
    root.with_name("mine").mkdir()
    (root.with_name("mine") / "letter").touch()
    with pytest.raises(NotReadyError, match=r"would mix|left alone"):
        shrink_data_set(find_data_set(root), root / place, side=64)
    assert (root.with_name("mine") / "letter").is_file()


def test_two_images_never_become_one(tmp_path: Path) -> None:
    folder = tmp_path / "dogs" / "train" / "a"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(image_of(320, 240, "PNG"))
    (folder / "1.png.jpg").write_bytes(image_of(320, 240))
    shutil.copytree(folder, tmp_path / "dogs" / "valid" / "a")
    with pytest.raises(NotReadyError, match=r"(train|valid)/a/1\.png.* would become (train|valid)/a/1\.png\.jpg"):
        shrink(tmp_path / "dogs")
    assert not (tmp_path / "small").exists()
