"""The images of a split in one array: all of them, in order, and shared by the workers of a host."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from training_fixtures import LABELS, draw, write_data_set

from model.core.transforms import Preprocessing
from model.training.data import decoded
from model.training.data.dataset import discover
from model.training.data.decoded import decode_for_augmentation, decode_for_serving, whole_image
from model.training.data.listing import DataSetError
from model.training.distributed.group import Workers

SMALL = Preprocessing(16, 16)


@pytest.fixture
def root(tmp_path):
    return write_data_set(tmp_path / "dogs", train=3, valid=2, test=1)


def test_images_are_decoded_in_order_and_unreadable_ones_are_left_out_and_named(root, caplog):
    broken = {"empty.jpg": b"", "page.jpg": b"<html>", "half.png": draw(0, 1)[:200]}
    for name, content in broken.items():
        (root / "train" / LABELS[1] / name).write_bytes(content)
    (root / "train" / LABELS[1] / "dangling.jpg").symlink_to(root / "nowhere.jpg")
    split = discover(root).splits["train"]
    images = decode_for_augmentation(split, SMALL, 2)
    assert images.targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert set(images.skipped) == {f"train/{LABELS[1]}/{name}" for name in broken}
    assert all(name in caplog.text for name in broken)
    for path, pixels, aspect in zip(split.without(images.skipped).paths, images.pixels, images.aspects, strict=True):
        with Image.open(path) as image:
            assert aspect == pytest.approx(image.width / image.height)
            np.testing.assert_array_equal(pixels, whole_image(image, 20))


def on_hosts(hosts, local, function):
    """Call a function as every worker of so many hosts; the results by rank."""
    size = hosts * local
    values, barrier = [None] * size, threading.Barrier(size, timeout=10)

    class Together(Workers):
        def all_gather(self, value):
            values[self.rank] = value
            barrier.wait()
            gathered = list(values)
            barrier.wait()
            return gathered

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: function(Together(rank, size, rank % local, local)), range(size)))


@pytest.mark.parametrize("memory", [10**9, 1], ids=["memory", "file"])
@pytest.mark.parametrize("found", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize(("hosts", "local"), [(1, 3), (2, 2), (2, 1), (1, 12)])
def test_each_host_decodes_an_image_once_and_all_its_workers_have_it(root, monkeypatch, hosts, local, memory, found):
    for name in (f"{LABELS[0]}/0.jpg", f"{LABELS[2]}/z.jpg"):  # one in the first share, one in the last
        (root / "train" / name).write_bytes(b"broken")
    split = discover(root).splits["train"]
    alone = decode_for_augmentation(split, SMALL, 2)
    monkeypatch.setattr(decoded, "memory_bytes", lambda: memory)
    monkeypatch.setattr(decoded, "_OPEN_FILES", decoded._OPEN_FILES if found else root / "none")
    times, decode = [], decoded.decode
    monkeypatch.setattr(decoded, "decode", lambda *a, **b: times.append(1) or decode(*a, **b))
    for images in on_hosts(hosts, local, lambda workers: decode_for_augmentation(split, SMALL, 2, workers)):
        np.testing.assert_array_equal(images.pixels, alone.pixels)
        np.testing.assert_array_equal(images.aspects, alone.aspects)
        np.testing.assert_array_equal(images.targets, alone.targets)
        assert images.skipped == alone.skipped
    assert len(times) == len(split) * hosts * (1 if found else local)


def test_without_room_all_workers_of_a_host_say_so(root, monkeypatch):
    split = discover(root).splits["train"]

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoded.os, "posix_fallocate", refuse)
    for memory, where in ((10**9, "which memory does not have"), (1, "TMPDIR to a larger volume")):
        monkeypatch.setattr(decoded, "memory_bytes", lambda memory=memory: memory)

        def complaint(workers):
            with pytest.raises(DataSetError) as error:
                decode_for_serving(split, SMALL, 1, workers)
            return str(error.value)

        assert all(where in message for message in on_hosts(1, 2, complaint))


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_room_for_images_is_allocated_for_real(in_memory):
    with decoded._reserve(2**20, in_memory=in_memory) as file:
        assert os.fstat(file.fileno()).st_blocks * 512 >= 2**20


def test_no_decoded_image_waits_for_another(root, monkeypatch):
    split, decode, alive, most = discover(root).splits["train"], decoded.decode, [], []
    monkeypatch.setattr(
        decoded, "decode", lambda *a, **b: alive.append(1) or most.append(len(alive)) or decode(*a, **b)
    )
    monkeypatch.setattr(decoded, "whole_image", lambda image, side: alive.pop() and whole_image(image, side))
    decode_for_augmentation(split, SMALL, 2)
    assert len(most) == len(split) and max(most) <= 2


def test_a_class_without_a_readable_image_ends_the_training_and_is_named_and_in_another_split_it_is_a_warning(
    root, caplog
):
    for split in ("train", "valid"):
        for path in (root / split / LABELS[1]).iterdir():
            path.write_bytes(b"HEIC")
    splits = discover(root).splits
    skipped = {name: decode_for_augmentation(split, SMALL, 2).skipped for name, split in splits.items()}
    with pytest.raises(DataSetError, match=f"no image of '{LABELS[1]}' in the train split.*/000.png: This is not an"):
        splits["train"].refuse_unreadable(skipped["train"])
    splits["valid"].refuse_unreadable(skipped["valid"])
    assert f"no image of '{LABELS[1]}' in the valid split is readable" in caplog.text
