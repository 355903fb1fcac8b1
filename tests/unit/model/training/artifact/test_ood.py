"""The out-of-distribution score: a part of the graph that leaves the logits alone, and that tells images apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model.core.network import build
from model.core.predictor import OOD_OUTPUT, onnx_session
from model.core.transforms import Preprocessing
from model.training.artifact.export import export_onnx
from model.training.artifact.ood import add_ood_score
from model.training.artifact.quantize import Quantizer
from model.training.data.decoded import Images

SIZE = 32
PREPROCESSING = Preprocessing(SIZE, SIZE)


def colours(count: int, seed: int) -> Images:
    """Images of one colour each, of two kinds, with little noise."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, 2, count)
    pixels = np.where(targets, 200, 60)[:, None, None, None] + random.normal(0, 12, (count, SIZE, SIZE, 3))
    pixels += random.normal(0, 12, (count, 1, 1, 3))
    return Images(pixels.clip(0, 255).astype(np.uint8), np.ones(count, np.float32), targets)


def fit(path: Path, *, stop: bool = False, valid: int = 60):
    asked = {"preprocessing": PREPROCESSING, "threads": 1, "should_stop": lambda: stop}
    return add_ood_score(path, train=colours(80, 1), valid=colours(valid, 2), **asked)


# As a vision transformer: a matrix whose rows are parts of all images, before the last layer.
PARTS = [nn.Conv2d(3, 8, 8, 8), nn.ReLU(), nn.Flatten(2), nn.Flatten(0, 1), nn.Linear(16, 8), nn.Unflatten(0, (-1, 8))]


def make(path: Path, architecture: str, kind: str) -> None:
    torch.manual_seed(0)
    network = (
        nn.Sequential(*PARTS, nn.Flatten(), nn.Linear(64, 2))
        if architecture == "parts"
        else build(architecture, 2, input_size=SIZE)
    )
    export_onnx(network, path, 3, SIZE, SIZE)
    if kind == "int8":
        path.write_bytes(Quantizer(path, path.parent, colours(16, 3), PREPROCESSING).quantize().read_bytes())


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("resnet9", "fp32"), ("resnet9", "int8"), ("resnet18", "fp32"), ("squeezenet1_1", "fp32"), ("parts", "fp32")],
)
def test_the_score_leaves_the_logits_alone_and_tells_images_apart(tmp_path, architecture, kind):
    path = tmp_path / "model.onnx"
    make(path, architecture, kind)
    before = path.read_bytes()
    assert fit(path, stop=True) is None and path.read_bytes() == before
    found = fit(path)
    assert (found["training_images"], found["validation_images"]) == (80, 60)
    (again := tmp_path / "again.onnx").write_bytes(before)
    fit(again)
    assert again.read_bytes() == path.read_bytes()  # the same images, the same bytes
    random = np.random.default_rng(5)
    stripes = np.zeros((40, SIZE, SIZE, 3), np.uint8)
    stripes[:, ::2] = random.integers(100, 256, (40, 1, SIZE, 3))
    members, others = (PREPROCESSING.normalise(pixels) for pixels in (colours(60, 2).pixels, stripes))
    session = onnx_session(path)
    logits, scores = session.run(["logits", OOD_OUTPUT], {"image": members})
    assert np.array_equal(logits, onnx_session(before).run(["logits"], {"image": members})[0])
    alone = np.concatenate([session.run([OOD_OUTPUT], {"image": image[None]})[0] for image in members])
    np.testing.assert_allclose(alone, scores, rtol=1e-4)  # a lone image gets the score that it has in a batch
    assert scores.min() >= 0 and (scores <= 1).mean() == 57 / 60  # validation images: 95% are known
    if architecture != "parts":  # in whose last layer, which nothing has trained, stripes are like any image
        assert (session.run([OOD_OUTPUT], {"image": others})[0] > 1).mean() > 0.9


def test_of_few_validation_images_the_most_unusual_one_is_the_threshold(tmp_path):
    path = tmp_path / "model.onnx"
    make(path, "resnet9", "fp32")
    fit(path, valid=10)
    (scores,) = onnx_session(path).run([OOD_OUTPUT], {"image": PREPROCESSING.normalise(colours(10, 2).pixels)})
    assert scores.max() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(("middle", "why"), [(False, "no layer between the first"), (True, "does not tell the valid")])
def test_a_graph_without_a_middle_or_with_the_same_logits_for_all_stays_as_it_is(tmp_path, caplog, middle, why):
    path, last = tmp_path / "model.onnx", nn.Linear(3 * SIZE * SIZE, 2)
    nn.init.constant_(last.weight, 1e-12)
    export_onnx(nn.Sequential(*[nn.Conv2d(3, 3, 1)] * middle, nn.Flatten(), last), path, 3, SIZE, SIZE)
    before = path.read_bytes()
    assert fit(path) is None and path.read_bytes() == before
    assert why in caplog.text
