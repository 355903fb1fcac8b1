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
from model.training.head.extraction import Extraction, Run
from model.training.head.feature_store import Features, FeatureStore
from model.training.head.features import Views, compute

SIZE, SHARD, CPU = 32, 5, torch.device("cpu")
PREPROCESSING = Preprocessing(SIZE, 36)
TRAIN, VALID = 18, 6


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


@pytest.fixture
def damaged(data, tmp_path):
    """A data set of one's own, to be changed."""
    return shutil.copytree(data, tmp_path / "damaged")


@pytest.fixture
def runs(monkeypatch):
    """The number of images that go through a backbone, added up."""
    seen: list[int] = []
    engine = Extraction.engine

    def counting(wanted: Extraction) -> Run:
        run = engine(wanted)

        def count(batch):
            seen.append(len(batch))
            return run(batch)

        return count

    monkeypatch.setattr(Extraction, "engine", counting)
    return seen


def get(wanted: Extraction, folder: Path) -> Views:
    views = compute(wanted, FeatureStore(folder), ALONE, lambda: False)
    assert views is not None
    return views


def pairs(one: Views, two: Views) -> list[tuple[Features, Features]]:
    return list(zip([*one.train, one.valid], [*two.train, two.valid], strict=True))


def all_the_same(one: Views, two: Views) -> bool:
    return all(np.array_equal(a.values, b.values) and np.array_equal(a.targets, b.targets) for a, b in pairs(one, two))


@pytest.mark.parametrize(("half", "tolerance"), [(None, 1e-5), (torch.bfloat16, 0.02)])
def test_features_are_what_the_network_makes_of_the_images_as_the_server_cuts_them(data, tmp_path, half, tolerance):
    wanted = dataclasses.replace(extraction(data), half=half)
    views = get(wanted, tmp_path)
    for name, found in (("train", views.train[0]), ("valid", views.valid)):
        images = decode_for_serving(wanted.data_set, name, wanted.augmentation.preprocessing, 1)
        with torch.inference_mode():
            inputs = torch.from_numpy(wanted.augmentation.preprocessing.normalise(images.pixels))
            expected = wanted.backbone(inputs).numpy()
        assert np.linalg.norm(found.values - expected) < tolerance * np.linalg.norm(expected)
        assert (found.values.dtype, found.targets.tolist()) == (np.float32, images.targets.tolist())


def test_nothing_is_computed_twice_and_more_views_compute_only_those(data, tmp_path, runs):
    one = get(extraction(data), tmp_path)
    assert sum(runs) == TRAIN + VALID
    runs.clear()
    assert all_the_same(get(extraction(data), tmp_path), one)
    assert not runs
    three = get(extraction(data, views=3), tmp_path)
    assert sum(runs) == 2 * TRAIN
    assert np.array_equal(three.train[0].values, one.train[0].values)
    assert not np.allclose(three.train[1].values, three.train[2].values)


PLAIN, AUGMENTED = {("valid", 0), ("train", 0)}, {("train", 1)}


def one_weight(wanted: Extraction) -> Extraction:
    running = next(value for name, value in wanted.backbone.state_dict().items() if name.endswith("running_var"))
    running[0] += 1e-6
    return wanted


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (one_weight, PLAIN | AUGMENTED),
        (lambda wanted: dataclasses.replace(wanted, identity=Fingerprint("another", ())), PLAIN | AUGMENTED),
        (lambda wanted: dataclasses.replace(wanted, half=torch.bfloat16), PLAIN | AUGMENTED),
        (lambda wanted: dataclasses.replace(wanted, augmentation=Augmentation(PREPROCESSING, ratio=1)), AUGMENTED),
        (lambda wanted: dataclasses.replace(wanted, seed=1), AUGMENTED),  # the plain views have nothing random
    ],
)
def test_what_features_depend_on_makes_other_ones(data, change, changed):
    before, after = extraction(data, views=2).folders(), change(extraction(data, views=2)).folders()
    assert {key for key in before if after[key] != before[key]} == changed


@pytest.mark.parametrize(("module", "changed"), [(augment, AUGMENTED), (transforms, PLAIN | AUGMENTED)])
def test_another_program_makes_other_features(data, tmp_path, monkeypatch, module, changed):
    before = extraction(data, views=2).folders()
    (tmp_path / "newer.py").write_bytes(Path(module.__file__).read_bytes() + b"#")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "newer.py"))
    after = extraction(data, views=2).folders()
    assert {key for key in before if after[key] != before[key]} == changed


def test_unreadable_images_are_left_out_and_named_also_when_a_whole_shard_is(damaged, tmp_path):
    for index in range(SHARD):  # the first shard of the training split
        (damaged / "train" / LABELS[0] / f"{index:03d}.png").write_bytes(b"no picture")
    first = get(extraction(damaged), tmp_path / "store")
    assert len(first.train[0]) == TRAIN - SHARD
    assert len(first.skipped) == SHARD
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


def test_a_full_disk_costs_the_cache_and_not_the_training(data, tmp_path, monkeypatch, caplog):
    expected = get(extraction(data), tmp_path / "roomy")

    fill_disk(monkeypatch)
    assert all_the_same(get(extraction(data), tmp_path / "full"), expected)
    assert not [path for path in (tmp_path / "full").rglob("*") if path.is_file()]
    assert caplog.text.count("No space left on device") == 1


def share_the_work(data: Path, folder: Path) -> int:
    """Compute features with the others; how many shards this worker has made."""
    with joined() as workers:
        store = FeatureStore(folder / str(workers.rank))
        views = compute(extraction(data, views=2), store, workers, lambda: False)
        assert (views is None) == (workers.rank != 0)
        return len([path for path in (folder / str(workers.rank)).rglob("*") if path.is_file()])


def test_two_workers_without_a_common_disk_share_the_work_and_make_the_same_features(data, tmp_path, runs):
    # 2 x 4 shards of the training images and 2 of the others: half for each, and then all of them for the main worker.
    assert run_workers(2, share_the_work, data, tmp_path) == [10, 5]
    together = get(extraction(data, views=2), tmp_path / "0")
    assert not runs
    assert all_the_same(together, get(extraction(data, views=2), tmp_path / "alone"))
