"""Features are computed once: what is in the store is used, what differs is not, and what was killed goes on."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training_fixtures import LABELS, draw, write_data_set

from model.core import transforms
from model.core.network import build
from model.core.transforms import Preprocessing
from model.training import whole_files
from model.training.data import augment
from model.training.data.augment import Augmentation
from model.training.data.dataset import DataSetError, decode_for_serving, discover, fingerprint
from model.training.distributed.group import ALONE
from model.training.head import features
from model.training.head.backbone import split
from model.training.head.feature_store import Features, FeatureStore
from model.training.head.features import Extraction, compute

SIZE = 32
SHARD = 5


def extraction(data: Path, *, views: int = 1, seed: int = 0, network_seed: int = 0, size: int = SIZE) -> Extraction:
    """Describe the features of a random network, the same for the same arguments in every process."""
    torch.manual_seed(network_seed)
    backbone, _ = split(build("resnet9", len(LABELS)), "resnet9", size)
    data_set = discover(data)
    augmentation = Augmentation(Preprocessing(size, round(size * 1.125)))
    return Extraction(
        backbone, data_set, fingerprint(data_set), augmentation, views, seed, torch.device("cpu"), threads=2
    )


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(features, "SHARD_PICTURES", SHARD)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "sample", train=6, valid=2, test=1)


@pytest.fixture
def runs(monkeypatch):
    """The number of pictures that go through a backbone, added up."""
    seen: list[int] = []
    engine = features._engine

    def counting(wanted: Extraction) -> features.Run:
        run = engine(wanted)

        def count(batch):
            seen.append(len(batch))
            return run(batch)

        return count

    monkeypatch.setattr(features, "_engine", counting)
    return seen


def get(wanted: Extraction, folder: Path) -> features.Views:
    views = compute(wanted, FeatureStore(folder), ALONE, lambda: False)
    assert views is not None
    return views


def same(one: Features, two: Features) -> bool:
    return np.array_equal(one.values, two.values) and np.array_equal(one.targets, two.targets)


def all_the_same(one: features.Views, two: features.Views) -> bool:
    pairs = zip([*one.train, one.valid], [*two.train, two.valid], strict=True)
    return all(same(a, b) for a, b in pairs)


def test_features_are_what_the_network_makes_of_the_pictures_as_the_server_cuts_them(data, tmp_path):
    wanted = extraction(data)
    views = get(wanted, tmp_path)
    for name, found in (("train", views.train[0]), ("valid", views.valid)):
        pictures = decode_for_serving(wanted.data_set, name, wanted.augmentation.preprocessing, 1)
        with torch.inference_mode():
            inputs = torch.from_numpy(wanted.augmentation.preprocessing.normalise(pictures.pixels))
            expected = wanted.backbone(inputs).numpy()
        np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)
        assert found.targets.tolist() == pictures.targets.tolist()


def test_the_backbone_is_not_changed_by_a_single_bit(data, tmp_path):
    wanted = extraction(data, views=2)
    before = {name: value.clone() for name, value in wanted.backbone.state_dict().items()}
    get(wanted, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in wanted.backbone.state_dict().items())


def test_nothing_is_computed_twice(data, tmp_path, runs):
    first = get(extraction(data), tmp_path)
    assert sum(runs) == 18 + 6
    runs.clear()
    assert all_the_same(get(extraction(data), tmp_path), first)
    assert not runs


def test_the_number_of_threads_changes_no_feature_and_is_left_as_it_was(data, tmp_path, runs):
    usual = torch.get_num_threads()
    wanted = extraction(data, views=2)
    made = {}
    for threads in (1, 2, 7):
        made[threads] = get(dataclasses.replace(wanted, threads=threads), tmp_path / str(threads))
        assert torch.get_num_threads() == usual
    assert sum(runs) == 3 * (2 * 18 + 6)
    for others in (made[2], made[7]):
        for one, other in zip([*made[1].train, made[1].valid], [*others.train, others.valid], strict=True):
            np.testing.assert_allclose(one.values, other.values, rtol=1e-5, atol=1e-6)


def test_more_views_compute_only_those_and_each_is_another(data, tmp_path, runs):
    one = get(extraction(data), tmp_path)
    runs.clear()
    three = get(extraction(data, views=3), tmp_path)
    assert sum(runs) == 2 * 18
    assert same(three.train[0], one.train[0])
    values = [view.values for view in three.train]
    assert not any(np.allclose(values[a], values[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    runs.clear()
    assert all_the_same(get(extraction(data, views=3), tmp_path), three)
    assert not runs


@pytest.mark.parametrize(
    ("change", "pictures"),
    [
        ({"network_seed": 1}, 3 * 18 + 6),
        ({"size": 48}, 3 * 18 + 6),
        ({"seed": 1}, 2 * 18),  # the plain views have nothing random
    ],
)
def test_another_backbone_size_or_seed_is_computed_anew(data, tmp_path, runs, change, pictures):
    get(extraction(data, views=3), tmp_path)
    runs.clear()
    get(extraction(data, views=3, **change), tmp_path)
    assert sum(runs) == pictures


def test_other_augmentation_is_computed_anew_but_not_the_plain_view(data, tmp_path, runs):
    wanted = extraction(data, views=2)
    get(wanted, tmp_path)
    runs.clear()
    get(dataclasses.replace(wanted, augmentation=dataclasses.replace(wanted.augmentation, rotation=9.0)), tmp_path)
    assert sum(runs) == 18


def test_one_weight_that_differs_is_another_backbone(data):
    wanted = extraction(data)
    before = wanted.folders()
    running = next(value for name, value in wanted.backbone.state_dict().items() if name.endswith("running_var"))
    running[0] += 1e-6
    assert not set(before.values()) & set(wanted.folders().values())


@pytest.mark.parametrize(
    ("module", "changed"), [(augment, {("train", 1)}), (transforms, {("valid", 0), ("train", 0), ("train", 1)})]
)
def test_another_program_makes_other_features(data, tmp_path, monkeypatch, module, changed):
    before = extraction(data, views=2).folders()
    (tmp_path / "newer.py").write_bytes(Path(module.__file__).read_bytes() + b"#")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "newer.py"))
    after = extraction(data, views=2).folders()
    assert {key for key in before if after[key] != before[key]} == changed


def test_another_picture_is_another_data_set(data, tmp_path, runs):
    changed = shutil.copytree(data, tmp_path / "changed")
    get(extraction(changed), tmp_path / "store")
    runs.clear()
    (changed / "train" / LABELS[0] / "000.png").write_bytes(draw(0, 777))
    get(extraction(changed), tmp_path / "store")
    assert sum(runs) == 18 + 6


def test_where_the_data_lies_does_not_matter(data, tmp_path, runs):
    get(extraction(data), tmp_path / "store")
    runs.clear()
    get(extraction(shutil.copytree(data, tmp_path / "elsewhere")), tmp_path / "store")
    assert not runs


def test_unreadable_pictures_are_left_out_and_named_also_when_a_whole_shard_is(data, tmp_path, runs):
    damaged = shutil.copytree(data, tmp_path / "damaged")
    for index in range(SHARD):  # the first shard of the training split
        (damaged / "train" / LABELS[0] / f"{index:03d}.png").write_bytes(b"no picture")
    first = get(extraction(damaged), tmp_path / "store")
    assert len(first.train[0]) == 18 - SHARD
    assert len(first.skipped) == SHARD
    assert f"train/{LABELS[0]}/000.png" in first.skipped
    runs.clear()
    again = get(extraction(damaged), tmp_path / "store")
    assert again.skipped == first.skipped
    assert not runs


def test_a_split_without_a_readable_picture_is_refused(data, tmp_path):
    damaged = shutil.copytree(data, tmp_path / "damaged")
    for path in damaged.glob("valid/*/*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(DataSetError, match="no picture of the valid split is readable; the first: valid/"):
        get(extraction(damaged), tmp_path / "store")


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:40] + b"X" + b[41:], lambda b: b[:10]]
)
def test_a_damaged_shard_is_seen_and_only_that_one_computed_again(data, tmp_path, runs, damage):
    first = get(extraction(data), tmp_path)
    shards = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(shards) == 4 + 2
    runs.clear()
    shards[0].write_bytes(damage(shards[0].read_bytes()))
    assert all_the_same(get(extraction(data), tmp_path), first)
    assert 0 < sum(runs) <= SHARD


def test_a_stop_keeps_what_is_finished(data, tmp_path, runs):
    wanted = extraction(data, views=2)
    stopped = compute(wanted, FeatureStore(tmp_path), ALONE, lambda: len(runs) >= 3)
    assert stopped is None
    before = sum(runs)
    assert before < 2 * 18 + 6
    runs.clear()
    views = get(wanted, tmp_path)
    # At most the one shard that was under way is computed a second time.
    assert 2 * 18 + 6 - before <= sum(runs) <= 2 * 18 + 6 - before + SHARD
    assert all_the_same(views, get(wanted, tmp_path / "undisturbed"))


def test_a_full_disk_costs_the_cache_and_not_the_training(data, tmp_path, monkeypatch, caplog):
    expected = get(extraction(data), tmp_path / "roomy")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole_files.os, "fsync", full)
    assert all_the_same(get(extraction(data), tmp_path / "full"), expected)
    assert not [path for path in (tmp_path / "full").rglob("*") if path.is_file()]
    assert caplog.text.count("No space left on device") == 1


# What follows runs in processes of its own, which import this file for `extraction`.
PROGRAM = """
import os, signal, sys
from pathlib import Path
import test_features
from model.training import whole_files
from model.training.head import feature_store, features
from model.training.distributed.group import joined
features.SHARD_PICTURES = test_features.SHARD
data, folder = map(Path, sys.argv[1:3])
"""
KILLED = """
writes = 0
def die_in_the_middle(_):
    global writes
    writes += 1
    if writes == 7:  # the fourth shard; each is synchronised twice, itself and its folder
        os.kill(os.getpid(), signal.SIGKILL)
whole_files.os.fsync = die_in_the_middle
test_features.get(test_features.extraction(data, views=2), folder)
"""
SHARED = """
with joined() as workers:
    store = feature_store.FeatureStore(folder / str(workers.rank))
    puts = []
    put = store.put
    store.put = lambda name, made: (puts.append(name), put(name, made))
    views = features.compute(test_features.extraction(data, views=2), store, workers, lambda: False)
    assert (views is None) == (workers.rank != 0)
    assert len(puts) == 5, puts  # half of 2 x 4 shards of the training pictures and of 2 of the others
"""

TOGETHER = """
import time
sync = whole_files.os.fsync
def slowly(descriptor):
    time.sleep(0.05)  # so that both write the same shard
    sync(descriptor)
whole_files.os.fsync = slowly
(folder / str(os.getpid())).touch()
while len(list(folder.glob("[0-9]*"))) < 2:
    time.sleep(0.001)
test_features.get(test_features.extraction(data, views=2), folder / "store")
"""


def test_features_in_half_precision_are_near_and_kept_apart(data, tmp_path, runs):
    whole = extraction(data, views=2)
    half = dataclasses.replace(whole, half=torch.bfloat16)
    exact, rounded = get(whole, tmp_path), get(half, tmp_path)
    seen = len(runs)
    assert all_the_same(rounded, get(half, tmp_path))
    assert all_the_same(exact, get(whole, tmp_path))
    assert len(runs) == seen, "both are found again"
    for one, other in zip([*exact.train, exact.valid], [*rounded.train, rounded.valid], strict=True):
        assert other.values.dtype == np.float32
        distance = np.linalg.norm(one.values - other.values) / np.linalg.norm(one.values)
        assert 0 < distance < 0.02  # bfloat16 has eight digits, of two


def start(program: str, *arguments: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + program, *map(str, arguments)],
        env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_after_a_kill_in_the_middle_of_a_write_only_the_missing_shards_are_computed(data, tmp_path, runs):
    process = start(KILLED, data, tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    assert list(tmp_path.rglob("*.unfinished"))
    views = get(extraction(data, views=2), tmp_path)
    # Three shards of 5 were whole; the fourth had not yet its name.
    assert sum(runs) == 2 * 18 + 6 - 3 * SHARD
    assert not list(tmp_path.rglob("*.unfinished"))
    assert all_the_same(views, get(extraction(data, views=2), tmp_path / "undisturbed"))


def test_two_workers_without_a_common_disk_share_the_work_and_make_the_same_features(data, tmp_path, runs):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    workers = [start(SHARED, data, tmp_path, RANK=rank, LOCAL_RANK=rank, **group) for rank in ("0", "1")]
    for process in workers:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    # The main worker has all of it now, whoever computed it, and the very bits that one worker makes.
    together = get(extraction(data, views=2), tmp_path / "0")
    assert not runs
    assert all_the_same(together, get(extraction(data, views=2), tmp_path / "alone"))


def test_two_trainings_that_begin_at_once_both_make_the_right_features(data, tmp_path, runs):
    for process in [start(TOGETHER, data, tmp_path) for _ in range(2)]:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "cannot be kept" not in errors
        assert "damaged" not in errors
    together = get(extraction(data, views=2), tmp_path / "store")
    assert not runs
    assert all_the_same(together, get(extraction(data, views=2), tmp_path / "alone"))
