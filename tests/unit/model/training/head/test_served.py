"""The precision of features is measured, and the graph that made int8 features is the one that is served."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from distributed_fixtures import run_workers
from test_features import SIZE, extraction
from torch import nn
from training_fixtures import LABELS, write_data_set

from model.core.artifact import verify_files
from model.core.network import build
from model.core.packaging import package
from model.core.predictor import onnx_session
from model.core.transforms import Preprocessing
from model.train import main
from model.training import pipeline
from model.training.artifact.changes import Changes, Limits
from model.training.artifact.export import check_export
from model.training.data.dataset import discover
from model.training.data.decoded import decode_for_serving
from model.training.data.image_folder import Split
from model.training.distributed.group import ALONE, joined
from model.training.head import served
from model.training.head.backbone import split
from model.training.head.extraction import Extraction
from model.training.head.feature_store import FeatureStore
from model.training.head.features import compute
from model.training.head.served import Int8Backbone, choose_features, is_worse
from model.training.loop.evaluation import evaluate_artifact


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "sample", train=12, valid=6, test=1)


@pytest.fixture(autouse=True)
def always_faster(monkeypatch):
    """A machine without int8 instructions must give the same results."""
    monkeypatch.setattr(served, "MIN_SPEEDUP", 0.0)


def choose(wanted: Extraction, folder: Path, *, loss=1.0, workers=ALONE, should_stop=lambda: False):
    return choose_features(wanted, new_head(), Limits(loss, 0.98), FeatureStore(folder), workers, should_stop)


def new_head() -> nn.Module:
    torch.manual_seed(0)
    return split(build("resnet9", len(LABELS)), "resnet9", SIZE)[1]


@pytest.mark.parametrize(("architecture", "size"), [("squeezenet1_1", 64), ("mobilenet_v3_small", 32)])
def test_what_is_served_are_the_int8_features_and_the_head_on_them(data, tmp_path, architecture, size):
    preprocessing = Preprocessing(size, size)
    torch.manual_seed(1)
    backbone, head = split(build(architecture, len(LABELS)), architecture, size)
    wanted = extraction(data)
    augmentation = dataclasses.replace(wanted.augmentation, preprocessing=preprocessing)
    wanted = dataclasses.replace(wanted, backbone=backbone, augmentation=augmentation)
    graph = served.quantised(wanted)
    views = compute(dataclasses.replace(wanted, int8=graph), FeatureStore(tmp_path), ALONE, lambda: False)
    answers = Int8Backbone(graph, {}).write_with(head, tmp_path / "model.onnx")
    images = preprocessing.normalise(decode_for_serving(wanted.data_set.splits["valid"], preprocessing, 1).pixels)
    (found,) = onnx_session(tmp_path / "model.onnx").run(["logits"], {"image": images})
    with torch.inference_mode():
        expected = head(torch.from_numpy(views.valid.values)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert check_export(answers, tmp_path / "model.onnx", images).agreement == 1


def test_the_choice_is_kept_with_its_graph_for_every_training_on_this_data_and_backbone(data, tmp_path, monkeypatch):
    chosen, int8 = choose(extraction(data), tmp_path)
    compared = int8.decision["comparison"]
    assert int8.decision["precision"] == "int8"
    assert (compared["training"]["images"], compared["fp32_ms"] > 0) == (36, True)
    assert chosen.folders().keys() == extraction(data).folders().keys()
    assert not set(chosen.folders().values()) & set(extraction(data).folders().values())
    again, _ = choose(extraction(data), tmp_path / "anew")
    assert again.int8 == chosen.int8, "the same inputs give the same graph"
    monkeypatch.setattr(served, "quantised", None)
    found, same = choose(extraction(data, views=3), tmp_path)
    assert (found.int8, same) == (chosen.int8, int8)


CLEAR = np.eye(3, 96, dtype=np.float32)[np.repeat(range(3), 12)]  # the class can be read off
DARK = np.eye(36, 96, dtype=np.float32)


@pytest.mark.parametrize(
    ("int8", "times", "loss", "chosen"),
    [
        (CLEAR, (3.0, 1.0, 2.0), 0.01, "int8"),
        (CLEAR, (3.0, 2.5, 2.0), 0.01, "bf16"),
        (CLEAR, (3.0, 3.0, 2.9), 0.01, "fp32"),
        (DARK, (3.0, 1.0, 2.0), 1.0, "bf16"),
        (CLEAR / 2, (3.0, 1.0, 2.0), 0.01, "bf16"),  # the same answers, less sure
        (CLEAR / 2, (3.0, 1.0, 2.0), 0.99, "int8"),
    ],
)
def test_the_fastest_precision_is_chosen_from_which_heads_learn_as_much(
    data, tmp_path, monkeypatch, int8, times, loss, chosen
):
    found = dict(zip(("fp32", "int8", "bf16"), zip((CLEAR, int8, CLEAR), times, strict=True), strict=True))
    monkeypatch.setattr(served, "MIN_SPEEDUP", 1.1)
    monkeypatch.setattr(served, "quantised", lambda _: b"graph")
    monkeypatch.setattr(served, "measured", lambda *_: found)
    monkeypatch.setattr(served, "fair_order", range)
    wanted = dataclasses.replace(extraction(data), half=torch.bfloat16)
    made, _ = choose(wanted, tmp_path, loss=loss)
    assert ("int8" if made.int8 else "bf16" if made.half else "fp32") == chosen


@pytest.mark.parametrize(
    ("classes", "each", "expected"), [(133, 3, (100, 3)), (3, 500, (120, 40)), (200, 60, (960, 8))]
)
def test_the_sample_is_as_large_as_asked_of_few_classes(monkeypatch, classes, each, expected):
    monkeypatch.setattr(served, "decode_for_serving", lambda images, *_: images)
    places = tuple(map(Path, map(str, range(classes * each))))
    train = Split(Path(), "train", places, tuple(index // each for index in range(classes * each)))
    folder = SimpleNamespace(splits={"train": train, "valid": train})
    wanted = SimpleNamespace(data_set=folder, views=1, threads=1, augmentation=SimpleNamespace(preprocessing=None))
    counted = Counter(served._sample(wanted).targets)
    assert (counted.total(), max(counted.values())) == expected


@pytest.mark.parametrize(
    ("lost", "won", "worse"),
    [(0, 0, False), (4, 0, False), (5, 0, True), (26, 14, True), (24, 16, False), (3, 9, False)],
)
def test_a_head_is_worse_where_chance_hardly_explains_it(lost, won, worse):
    assert is_worse(Changes(images=2000, answers=50, lost=lost, won=won)) == worse


def test_a_stop_and_what_cannot_be_quantised_leave_no_choice_behind(data, tmp_path, monkeypatch):
    assert choose(extraction(data), tmp_path, should_stop=lambda: True)[1] is None
    monkeypatch.setattr(served, "quantised", None)
    assert choose(extraction(data), tmp_path)[1] is None
    assert not list(tmp_path.rglob("*.*"))


def both_choose(data: Path, folder: Path) -> bytes | None:
    served.MIN_SPEEDUP = 0.0
    with joined() as workers:
        return choose(extraction(data), folder / str(workers.rank), workers=workers)[0].int8


def test_all_workers_have_the_graph_of_the_main_one(data, tmp_path):
    graphs = run_workers(2, both_choose, data, tmp_path)
    assert graphs[0] == graphs[1] != b""


@pytest.mark.parametrize(("asked", "ships"), [("auto", "int8"), ("fp32", "fp32")])
def test_a_training_ships_the_graph_that_its_head_was_trained_on(tmp_path, monkeypatch, asked, ships):
    torch.manual_seed(5)
    torch.save(build("resnet9", len(LABELS)).state_dict(), tmp_path / "weights.pt")
    data = write_data_set(tmp_path / "data", test=0)
    (data / "test" / LABELS[0]).mkdir(parents=True)
    (data / "test" / LABELS[0] / "1.png").write_bytes(b"no image")
    places = {"data-dir": data, "weights": tmp_path / "weights.pt"}
    places |= {name: tmp_path / name for name in ("model-dir", "output-data-dir", "feature-cache")}
    command = [*(f"--{name}={path}" for name, path in places.items()), "--mode=head", f"--input-size={SIZE}"]
    command += ["--epochs=3", "--num-cpus=2", f"--precision={asked}", "--int8-max-accuracy-loss=1"]

    with monkeypatch.context() as killed:  # after the head, before the artifact
        killed.setattr(pipeline, "finish", lambda *_, **__: None)
        assert main(command) == 0
    assert package(tmp_path / "model-dir", tmp_path / "best.tar.gz").precision == ships

    assert main(command) == 0
    card = verify_files(tmp_path / "model-dir")
    metrics = json.loads((tmp_path / "output-data-dir" / "metrics.json").read_text())
    assert (card.precision, metrics["quantization"], metrics["test"]) == (ships, card.quantization or None, None)
    # The validation of the served graph is that of the best epoch, and what the packaged model answers.
    best = min(metrics["epochs"], key=lambda epoch: epoch["valid_loss"])
    served_loss = metrics["calibration"]["valid"]["before"]["loss"]
    assert (metrics["valid"]["accuracy"], served_loss) == pytest.approx((best["valid_accuracy"], best["valid_loss"]))
    package(tmp_path / "model-dir", tmp_path / "model.tar.gz")
    shutil.unpack_archive(tmp_path / "model.tar.gz", tmp_path / "unpacked", filter="data")
    answers, _ = evaluate_artifact(tmp_path / "unpacked", discover(data).splits["valid"])
    assert answers.evaluation().loss == pytest.approx(metrics["valid"]["loss"], rel=1e-14)  # summed up in another order
    assert "no image of it is readable" in (tmp_path / "output-data-dir" / "report.html").read_text()
