"""The graph gives the network's answers; int8 ships only where it is faster and as good, else fp32 with a reason."""

from __future__ import annotations

import copy
import itertools
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model.core.predictor import onnx_session
from model.core.transforms import Preprocessing
from model.training.artifact import precision, quantize
from model.training.artifact.changes import Limits
from model.training.artifact.export import MAX_LOGIT_DIFFERENCE, ExportError, check_export, export_onnx, try_export
from model.training.artifact.precision import Decision, choose_precision
from model.training.data.decoded import Images
from model.training.loop.evaluation import fair_order, graph_outputs

SIZE, CLASSES = 16, 4
PREPROCESSING = Preprocessing(SIZE, SIZE)
LIMITS = Limits(max_accuracy_loss=0.02, min_agreement=0.96)


def stripes(count: int, seed: int) -> Images:
    """Images of stripes in four directions, in any colours, with noise."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, CLASSES, count)
    angle = targets * np.pi / CLASSES
    y, x = np.mgrid[:SIZE, :SIZE]
    along = x * np.cos(angle)[:, None, None] + y * np.sin(angle)[:, None, None]
    wave = np.sin(along * random.uniform(0.8, 1.2, (count, 1, 1)) + random.uniform(0, 6, (count, 1, 1)))
    colours = random.uniform(-60, 60, (count, 1, 1, 3))
    pixels = 128 + wave[..., None] * colours + random.normal(0, 8, (count, SIZE, SIZE, 3))
    return Images(pixels.clip(0, 255).astype(np.uint8), np.ones(count, np.float32), targets)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        channels = (3, 64, 64, 64, 64)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(channels))
        self.classifier = nn.Linear(channels[-1], CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        for convolution in self.convolutions:
            image = convolution(image).relu()
        return self.classifier(image.mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # threads that wait for one another on a busy machine take ten times as long
    network, images = Plain(), stripes(256, 0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    inputs, targets = torch.from_numpy(PREPROCESSING.normalise(images.pixels)), torch.from_numpy(images.targets)
    for _ in range(6):
        for batch in torch.randperm(len(targets)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    return network.eval()


def made_hostile(network: nn.Module, *firsts: int) -> nn.Module:
    """Scale the channels behind some layers apart, and back in the next one: the same function, which int8 cannot hold.

    A ReLU and a mean commute with a positive factor, so that only rounding notices.
    """
    hostile = copy.deepcopy(network)
    layers = [*hostile.convolutions, hostile.classifier]
    random = np.random.default_rng(0)
    with torch.no_grad():
        for index in firsts:
            first, second = layers[index], layers[index + 1]
            factors = torch.from_numpy(np.exp(random.uniform(0, np.log(1e5), 64))).float()
            first.weight.mul_(factors[:, None, None, None])
            first.bias.mul_(factors)
            second.weight.div_(factors[None, :, None, None] if second is not layers[-1] else factors)
    return hostile


@pytest.fixture(autouse=True)
def always_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without int8 instructions must give the same results."""
    monkeypatch.setattr(precision, "MIN_SPEEDUP", 0.0)


def decide(network: nn.Module, path: Path, *, limits: Limits = LIMITS, should_stop=lambda: False) -> Decision:
    export_onnx(network, path, 3, SIZE, SIZE)
    images = {"calibration": stripes(60, 1), "valid": stripes(200, 2), "training": stripes(400, 3)}
    asked = {"limits": limits, "threads": 2, "should_stop": should_stop}
    return choose_precision(path, **images, preprocessing=PREPROCESSING, **asked)


def accuracy(path: Path) -> float:
    images = stripes(200, 2)
    (logits,) = onnx_session(path).run(["logits"], {"image": PREPROCESSING.normalise(images.pixels)})
    return float((logits.argmax(1) == images.targets).mean())


@pytest.mark.parametrize(("hostile", "kept"), [((), 0), ((3,), 2)])
def test_int8_ships_where_it_is_as_good_perhaps_with_the_last_layers_in_fp32(trained, tmp_path, hostile, kept):
    path, network = tmp_path / "model.onnx", made_hostile(trained, *hostile)
    decision = decide(network, path)
    assert decision.precision == "int8", decision.reason
    compared = decision.comparison
    assert compared.fp32_accuracy > 0.9
    assert LIMITS.admit(compared.valid, compared.training)
    images = compared.valid.images, compared.training.images, compared.calibration_images
    assert (*images, len(compared.kept_fp32)) == (200, 400, 60, kept)
    assert accuracy(path) == compared.int8_accuracy  # the file is the graph that was measured
    decide(network, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_network_that_int8_hurts_ships_as_fp32_with_the_reason(trained, tmp_path):
    decision = decide(made_hostile(trained, 0, 1), tmp_path / "model.onnx")
    assert decision.precision == "fp32"
    assert decision.reason.startswith("it is not shown that int8 is good enough: ")
    assert "allowed are a loss of 2 points and an agreement of 96.00%" in decision.reason
    assert decision.comparison.agreement < LIMITS.min_agreement
    assert decision.comparison.fp32_accuracy == accuracy(tmp_path / "model.onnx") > 0.9


@pytest.mark.parametrize(
    ("limits", "speedup", "stop", "reason"),
    [
        (Limits(1.0, 0.0), 1e6, False, "times as fast as fp32 here"),
        (LIMITS, 0.0, True, "asked to stop"),
        (Limits(0.005, 0.0), 0.0, False, "600 validation and training images cannot show that int8 stays within"),
    ],
)
def test_int8_does_not_ship_where_it_has_not_earned_it(trained, tmp_path, monkeypatch, limits, speedup, stop, reason):
    monkeypatch.setattr(precision, "MIN_SPEEDUP", speedup)
    decision = decide(trained, tmp_path / "model.onnx", limits=limits, should_stop=lambda: stop)
    assert (decision.precision, reason in decision.reason) == ("fp32", True)


def test_a_network_that_cannot_be_quantised_costs_no_training(trained, tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ValueError("unable to guess tensor type")

    nothing = decide(nn.Sequential(nn.AvgPool2d(16), nn.Flatten()), tmp_path / "model.onnx")
    assert (nothing.precision, nothing.reason) == ("fp32", "the network has no layer that int8 makes faster")
    monkeypatch.setattr(quantize, "quantize_static", fail)
    decision = decide(trained, tmp_path / "model.onnx")
    assert decision.precision == "fp32"
    assert decision.reason == "the network cannot be quantised: ValueError: unable to guess tensor type"
    assert accuracy(tmp_path / "model.onnx") > 0.9


@pytest.mark.parametrize(
    ("change", "refused"),
    [(10 * MAX_LOGIT_DIFFERENCE, True), (float("nan"), True), (0.1 * MAX_LOGIT_DIFFERENCE, False)],
)
def test_the_limit_is_on_single_logits(tmp_path, change, refused):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).eval()
    export_onnx(network, tmp_path / "model.onnx", 3, 8, 8)
    with torch.no_grad():
        network[1].bias[2] += change
    message = pytest.raises(ExportError, match=r"logits differ by up to .*, allowed is 0\.001")
    images = np.random.default_rng(0).normal(size=(8, 3, 8, 8), scale=0.01).astype(np.float32)
    with message if refused else nullcontext():
        check_export(network, tmp_path / "model.onnx", images)


class Untraceable(nn.Module):
    def forward(self, batch):
        return torch.linalg.eigvals(batch.mean(dim=1)).real


def test_a_network_that_onnx_cannot_express_is_an_error_in_words(tmp_path):
    with pytest.raises(ExportError, match="cannot be exported to ONNX"):
        export_onnx(Untraceable(), tmp_path / "model.onnx", 3, 8, 8)


def test_a_size_that_onnx_cannot_express_is_named_before_the_training_with_one_that_works(capfd):
    pooled = nn.Sequential(nn.AvgPool2d(32), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(147, 4), nn.Dropout())
    random = torch.get_rng_state()
    with pytest.raises(ExportError) as failure:
        try_export(pooled, "vgg16", 64)
    assert str(failure.value) == (
        "vgg16 at 64 x 64 pixels: the network cannot be exported to ONNX: Unsupported: ONNX export of operator "
        "adaptive_avg_pool2d, output size that are not factor of input size. --input-size 224 works; or take another "
        "--architecture"
    )
    assert capfd.readouterr() == ("", "")
    assert (pooled.training, bool((torch.get_rng_state() == random).all())) == (True, True)
    with pytest.raises(ExportError, match=r"resnet9 at 8 x 8 pixels: .*\. Take another --architecture"):
        try_export(Untraceable(), "resnet9", 8)
    try_export(pooled, "vgg16", 224)


def test_threads_and_batches_give_the_answers_of_one_image_at_a_time_and_stop_when_asked(trained, tmp_path):
    export_onnx(copy.deepcopy(trained), tmp_path / "model.onnx", 3, SIZE, SIZE)
    session, pixels, order = onnx_session(tmp_path / "model.onnx"), stripes(50, 4).pixels, fair_order(50)
    alone = [session.run(["logits"], {"image": PREPROCESSING.normalise(pixels[[index]])})[0] for index in order]

    def logits(**asked) -> np.ndarray:
        return graph_outputs(session, ["logits"], PREPROCESSING, pixels, order, threads=3, **asked)[0]

    assert np.array_equal(logits(should_stop=lambda: False), np.concatenate(alone))
    stopped = logits(should_stop=lambda: True, least=20)
    assert np.array_equal(stopped, np.concatenate(alone[:24]))  # whole batches
    assert len(logits(should_stop=lambda: True)) == 8
