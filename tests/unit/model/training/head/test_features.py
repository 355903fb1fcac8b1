"""Features are computed once: what is in the store is used, what differs is not, and what was stopped goes on."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed_fixtures import run_workers
from training_fixtures import LABELS, fill_disk, write_data_set

from model.core import transforms
from model.core.network import build
from model.core.transforms import Preprocessing
from model.training.data import augment
from model.training.data.augment import Augmentation
from model.training.data.dataset import Fingerprint, discover, fingerprint
from model.training.data.decoded import decode_for_serving
from model.training.distributed.group import ALONE, joined
from model.training.head.backbone import split
from model.training.head.extraction import Extraction
from model.training.head.feature_store import FeatureStore
from model.training.head.features import Views, compute

SIZE, SHARD, CPU = 32, 5, torch.device("cpu")
PREPROCESSING = Preprocessing(SIZE, 36)
TRAIN, VALID = 18, 6
PLAIN, AUGMENTED = {("valid", 0), ("train", 0)}, {("train", 1)}


def extraction(data: Path, *, views: int = 1) -> Extraction:
    """Describe the features of a random network, the same for the same arguments in every process."""
    torch.manual_seed(0)
    backbone, _ = split(build("resnet9", len(LABELS)), "resnet9", SIZE)
    data_set = discover(data)
    augmentation, identity = Augmentation(PREPROCESSING), fingerprint(data_set)
    return Extraction(backbone, data_set, identity, augmentation, views, 0, CPU, threads=2, shard=SHARD)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "sample", train=6, valid=2, test=1)


def counting(seen: list[int], engine=Extraction.engine):
    """Return an engine that takes note of how many images go through it."""

    def made(wanted: Extraction):
        run = engine(wanted)
        return lambda batch: (seen.append(len(batch)), run(batch))[1]

    return made


@pytest.fixture
def runs(monkeypatch):
    seen: list[int] = []
    monkeypatch.setattr(Extraction, "engine", counting(seen))
    return seen


def get(wanted: Extraction, folder: Path) -> Views:
    views = compute(wanted, FeatureStore(folder), ALONE, lambda: False)
    assert views is not None
    return views


def all_the_same(one: Views, two: Views) -> bool:
    pairs = zip([*one.train, one.valid], [*two.train, two.valid], strict=True)
    return all(np.array_equal(a.values, b.values) and np.array_equal(a.targets, b.targets) for a, b in pairs)


@pytest.mark.parametrize(("half", "tolerance"), [(None, 1e-5), (torch.bfloat16, 0.02)])
def test_features_are_what_the_network_makes_of_the_images_as_the_server_cuts_them(data, tmp_path, half, tolerance):
    wanted = dataclasses.replace(extraction(data), half=half)
    views = get(wanted, tmp_path)
    for name, found in (("train", views.train[0]), ("valid", views.valid)):
        images = decode_for_serving(wanted.data_set.splits[name], PREPROCESSING, 1)
        with torch.inference_mode():
            expected = wanted.backbone(torch.from_numpy(PREPROCESSING.normalise(images.pixels))).numpy()
        assert np.linalg.norm(found.values - expected) < tolerance * np.linalg.norm(expected)
        assert (found.values.dtype, found.targets.tolist()) == (np.float32, images.targets.tolist())


def test_nothing_is_computed_twice_but_on_a_full_disk_and_more_views_compute_only_those(data, tmp_path, runs, caplog):
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch)
        one = get(extraction(data), tmp_path)
    assert caplog.text.count("No space left on device") == 1
    assert all_the_same(get(extraction(data), tmp_path), one)
    assert sum(runs) == 2 * (TRAIN + VALID)
    runs.clear()
    assert all_the_same(get(extraction(data), tmp_path), one)
    assert not runs
    three = get(extraction(data, views=3), tmp_path)
    assert sum(runs) == 2 * TRAIN
    assert np.array_equal(three.train[0].values, one.train[0].values)
    assert not np.allclose(three.train[1].values, three.train[2].values)


def one_weight(wanted: Extraction) -> Extraction:
    running = next(value for name, value in wanted.backbone.state_dict().items() if name.endswith("running_var"))
    running[0] += 1e-6
    return wanted


@pytest.mark.parametrize(
    ("change", "program", "changed"),
    [
        (one_weight, None, PLAIN | AUGMENTED),
        ({"identity": Fingerprint("another", {})}, None, PLAIN | AUGMENTED),
        ({"half": torch.bfloat16}, None, PLAIN | AUGMENTED),
        ({"augmentation": Augmentation(PREPROCESSING, ratio=1)}, None, AUGMENTED),
        ({"seed": 1}, None, AUGMENTED),  # the plain views have nothing random
        ({}, transforms, PLAIN | AUGMENTED),
        ({}, augment, AUGMENTED),
    ],
)
def test_what_features_depend_on_makes_other_ones(data, tmp_path, monkeypatch, change, program, changed):
    wanted = extraction(data, views=2)
    before = wanted.folders()
    if program:
        (tmp_path / "newer.py").write_bytes(Path(program.__file__).read_bytes() + b"#")
        monkeypatch.setattr(program, "__file__", str(tmp_path / "newer.py"))
    after = (change(wanted) if callable(change) else dataclasses.replace(wanted, **change)).folders()
    assert {key for key in before if after[key] != before[key]} == changed


def test_unreadable_images_are_left_out_and_named_also_when_a_whole_shard_is(data, tmp_path):
    damaged = shutil.copytree(data, tmp_path / "damaged")
    for index in range(SHARD):  # the first shard of the training split
        (damaged / "train" / LABELS[0] / f"{index:03d}.png").write_bytes(b"no image")
    first = get(extraction(damaged), tmp_path / "store")
    assert (len(first.train[0]), len(first.skipped)) == (TRAIN - SHARD, SHARD)
    assert f"train/{LABELS[0]}/000.png" in first.skipped
    assert get(extraction(damaged), tmp_path / "store").skipped == first.skipped


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:40] + b"X" + b[41:]])
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
    assert compute(wanted, FeatureStore(tmp_path), ALONE, lambda: len(runs) >= 3) is None
    left = 2 * TRAIN + VALID - sum(runs)
    assert left > 0
    runs.clear()
    views = get(wanted, tmp_path)
    # At most the one shard that was under way is computed a second time.
    assert left <= sum(runs) <= left + SHARD
    assert all_the_same(views, get(wanted, tmp_path / "undisturbed"))


def share_the_work(data: Path, folder: Path) -> int:
    """Compute features with the others; how many images this worker has computed."""
    seen: list[int] = []
    Extraction.engine = counting(seen)
    with joined() as workers:
        views = compute(extraction(data, views=2), FeatureStore(folder / str(workers.rank)), workers, lambda: False)
        assert (views is None) == (workers.rank != 0)
    return sum(seen)


def test_two_workers_share_the_work_and_make_the_same_features_which_the_main_one_keeps(data, tmp_path, runs):
    shares = run_workers(2, share_the_work, data, tmp_path)
    assert sum(shares) == 2 * TRAIN + VALID
    assert abs(shares[0] - shares[1]) <= 2 * SHARD
    together = get(extraction(data, views=2), tmp_path / "0")
    assert not runs
    assert all_the_same(together, get(extraction(data, views=2), tmp_path / "alone"))
