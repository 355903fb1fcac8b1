from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from training_fixtures import LABELS, draw, write_data_set

from model.training.data import decoded
from model.training.data.dataset import DataSet, discover
from model.training.data.decoded import Images, load, whole_image
from model.training.data.image_folder import DataSetError


def load_train(data_set: DataSet, side: int = 16) -> Images:
    return load(data_set, "train", lambda image: whole_image(image, side), side, side, threads=2)


@pytest.fixture
def root(tmp_path):
    return write_data_set(tmp_path / "dogs", train=3, valid=2, test=1)


def test_images_are_decoded_in_order_and_unreadable_ones_are_left_out_and_named(root, caplog):
    broken = {"empty.jpg": b"", "page.jpg": b"<html>", "half.png": draw(0, 1)[:200]}
    for name, content in broken.items():
        (root / "train" / LABELS[1] / name).write_bytes(content)
    (root / "train" / LABELS[1] / "dangling.jpg").symlink_to(root / "nowhere.jpg")
    data_set = discover(root)
    images = load_train(data_set)
    assert images.targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert set(images.skipped) == {f"train/{LABELS[1]}/{name}" for name in broken}
    assert all(name in caplog.text for name in broken)
    good = [path for path in data_set.splits["train"].paths if path.name not in broken]
    for path, pixels, aspect in zip(good, images.pixels, images.aspects, strict=True):
        with Image.open(path) as image:
            assert aspect == pytest.approx(image.width / image.height)
            np.testing.assert_array_equal(pixels, whole_image(image, 16))


def test_images_beyond_memory_lie_in_a_file_if_the_disk_has_room(root, monkeypatch):
    data_set = discover(root)
    in_memory = load_train(data_set)
    monkeypatch.setattr(decoded.os, "sysconf", lambda name: 1)
    in_file = load_train(data_set)
    assert isinstance(in_file.pixels, np.memmap)
    np.testing.assert_array_equal(in_memory.pixels, in_file.pixels)
    with pytest.raises(DataSetError, match="TMPDIR"):  # before the work
        load_train(data_set, side=2**20)
