"""int8 ships only where it is faster and as good; anything else ships as fp32, and says why."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import quantize_static
from torch import nn

from model.core.predictor import onnx_session
from model.core.transforms import Preprocessing
from model.training.artifact import quantize
from model.training.artifact.export import export_onnx
from model.training.artifact.quantize import Decision, Limits, choose_precision
from model.training.data.dataset import Pictures

SIZE = 16
PREPROCESSING = Preprocessing(SIZE, SIZE)
LIMITS = Limits(max_accuracy_loss=0.005, min_agreement=0.985)
CLASSES = 4


def stripes(count: int, seed: int) -> Pictures:
    """Pictures of stripes in four directions, in any colours, with noise."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, CLASSES, count)
    angle = targets * np.pi / CLASSES
    y, x = np.mgrid[:SIZE, :SIZE]
    along = x * np.cos(angle)[:, None, None] + y * np.sin(angle)[:, None, None]
    wave = np.sin(along * random.uniform(0.8, 1.2, (count, 1, 1)) + random.uniform(0, 6, (count, 1, 1)))
    colours = random.uniform(-60, 60, (count, 1, 1, 3))
    pixels = 128 + wave[..., None] * colours + random.normal(0, 8, (count, SIZE, SIZE, 3))
    return Pictures(pixels.clip(0, 255).astype(np.uint8), np.ones(count, np.float32), targets)


class Plain(nn.Module):
    """Convolutions and ReLUs, wide enough for int8 to be worth it."""

    def __init__(self) -> None:
        super().__init__()
        channels = (3, 64, 64, 64)
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
    network, pictures = Plain(), stripes(256, 0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    inputs = torch.from_numpy(PREPROCESSING.normalise(pictures.pixels))
    targets = torch.from_numpy(pictures.targets)
    for _ in range(6):
        for batch in torch.randperm(len(targets)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    return network.eval()


def made_hostile(network: nn.Module, pairs: range, spread: float) -> nn.Module:
    """Scale the channels between two layers apart, and back in the next: the same function, which int8 cannot hold.

    A ReLU commutes with a positive factor, so that only rounding notices.
    """
    hostile = copy.deepcopy(network)
    random = np.random.default_rng(0)
    with torch.no_grad():
        for index in pairs:
            first, second = hostile.convolutions[index], hostile.convolutions[index + 1]
            factors = torch.from_numpy(np.exp(random.uniform(0, np.log(spread), 64))).float()
            first.weight.mul_(factors[:, None, None, None])
            first.bias.mul_(factors)
            second.weight.div_(factors[None, :, None, None])
    return hostile


def decide(
    network: nn.Module,
    path: Path,
    *,
    valid: int = 200,
    limits: Limits = LIMITS,
    should_stop: Callable[[], bool] = lambda: False,
) -> Decision:
    export_onnx(network, path, input_size=SIZE)
    return choose_precision(
        path,
        calibration=stripes(60, 1),
        valid=stripes(valid, 2),
        preprocessing=PREPROCESSING,
        limits=limits,
        should_stop=should_stop,
    )


def accuracy(path: Path) -> float:
    pictures = stripes(200, 2)
    (logits,) = onnx_session(path).run(["logits"], {"image": PREPROCESSING.normalise(pictures.pixels)})
    return float((logits.argmax(1) == pictures.targets).mean())


def integer_layers(path: Path) -> list[str]:
    """The convolutions whose weights are kept as int8."""
    graph = onnx.load(path).graph
    integers = {item.name for item in graph.initializer if item.data_type == onnx.TensorProto.INT8}
    dequantized = {
        node.output[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in integers
    }
    return [node.name for node in graph.node if node.op_type == "Conv" and node.input[1] in dequantized]


@pytest.fixture
def always_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the tests of accuracy: a machine without int8 instructions must give the same results."""
    monkeypatch.setattr(quantize, "MIN_SPEEDUP", 0.0)


def test_int8_ships_where_it_is_as_good(trained: nn.Module, tmp_path: Path, always_faster: None) -> None:
    path = tmp_path / "model.onnx"
    decision = decide(trained, path)
    assert decision.precision == "int8", decision.reason
    compared = decision.comparison
    assert compared is not None
    assert compared.fp32_accuracy > 0.9
    assert compared.fp32_accuracy - compared.int8_accuracy <= LIMITS.max_accuracy_loss
    assert compared.agreement >= LIMITS.min_agreement
    assert (compared.images, compared.calibration_images) == (200, 60)
    assert len(integer_layers(path)) == 3
    assert accuracy(path) == compared.int8_accuracy  # the file is the graph that was measured
    assert f"{compared.agreement:.2%}" in decision.reason
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    json.dumps(dataclasses.asdict(decision), allow_nan=False)


def test_the_same_graph_and_pictures_give_the_same_bytes(
    trained: nn.Module, tmp_path: Path, always_faster: None
) -> None:
    for name in ("one", "two"):
        assert decide(trained, tmp_path / name).precision == "int8"
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_network_that_int8_hurts_ships_as_fp32_with_the_reason(
    trained: nn.Module, tmp_path: Path, always_faster: None
) -> None:
    hostile = made_hostile(trained, range(2), 1e5)
    export_onnx(hostile, tmp_path / "before.onnx", input_size=SIZE)
    decision = decide(hostile, tmp_path / "model.onnx")
    assert decision.precision == "fp32"
    assert decision.reason.startswith("int8 costs too much: ")
    assert "allowed are a loss of 0.5 points and an agreement of 98.50%" in decision.reason
    assert decision.comparison is not None
    assert decision.comparison.agreement < LIMITS.min_agreement
    assert decision.comparison.fp32_accuracy == accuracy(tmp_path / "model.onnx") > 0.9
    assert (tmp_path / "model.onnx").read_bytes() == (tmp_path / "before.onnx").read_bytes()


def test_sensitive_layers_stay_in_fp32_and_the_others_ship_as_int8(
    trained: nn.Module, tmp_path: Path, always_faster: None
) -> None:
    decision = decide(made_hostile(trained, range(1), 1e5), tmp_path / "model.onnx")
    assert decision.precision == "int8", decision.reason
    assert decision.comparison is not None
    kept = decision.comparison.kept_fp32
    assert kept
    integers = integer_layers(tmp_path / "model.onnx")
    assert integers
    assert not set(kept) & set(integers)
    assert accuracy(tmp_path / "model.onnx") == decision.comparison.int8_accuracy


@pytest.mark.parametrize(
    ("limits", "ships"),
    [(Limits(-0.5, 0.0), "fp32"), (Limits(1.0, 0.0), "int8")],
)
def test_the_limits_are_settings(
    trained: nn.Module, tmp_path: Path, always_faster: None, limits: Limits, ships: str
) -> None:
    assert decide(trained, tmp_path / "model.onnx", limits=limits).precision == ships


def test_too_few_validation_pictures_prove_nothing(trained: nn.Module, tmp_path: Path) -> None:
    decision = decide(trained, tmp_path / "model.onnx", valid=66)
    assert decision.precision == "fp32"
    assert decision.reason == "66 validation images cannot show an agreement of 98.50%; at least 67 are needed"
    assert Limits(0.0, 1.0).min_images == 1  # every one must agree, which one picture can show
    assert decide(trained, tmp_path / "model.onnx", valid=67).comparison is not None


def test_int8_that_is_not_faster_does_not_ship(
    trained: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "MIN_SPEEDUP", 1e6)
    decision = decide(trained, tmp_path / "model.onnx")
    assert decision.precision == "fp32"
    assert "times as fast as fp32" in decision.reason
    assert not integer_layers(tmp_path / "model.onnx")


def test_a_network_without_layers_to_quantise_ships_as_it_is(tmp_path: Path) -> None:
    decision = decide(nn.Sequential(nn.AvgPool2d(16), nn.Flatten()), tmp_path / "model.onnx")
    assert (decision.precision, decision.comparison) == ("fp32", None)
    assert decision.reason == "the network has no layer that int8 makes faster"


def test_a_quantiser_that_fails_costs_no_training(
    trained: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("unable to guess tensor type")

    monkeypatch.setattr(quantize, "quantize_static", fail)
    decision = decide(trained, tmp_path / "model.onnx")
    assert decision.precision == "fp32"
    assert decision.reason == "the network cannot be quantised: ValueError: unable to guess tensor type"
    assert accuracy(tmp_path / "model.onnx") > 0.9


def test_a_request_to_stop_ends_the_attempts(trained: nn.Module, tmp_path: Path, always_faster: None) -> None:
    decision = decide(trained, tmp_path / "model.onnx", limits=Limits(-0.5, 0.0), should_stop=lambda: True)
    assert decision.precision == "fp32"
    assert "asked to stop" in decision.reason


def test_what_the_quantiser_prints_is_neither_among_the_metrics_nor_in_the_log(
    trained: nn.Module,
    tmp_path: Path,
    always_faster: None,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def talkative(*arguments: Any, **options: Any) -> None:
        logging.info("Created a copy of bias input")  # as of networks with branches, and of the root logger
        quantize_static(*arguments, **options)

    monkeypatch.setattr(quantize, "quantize_static", talkative)
    caplog.set_level(logging.INFO)
    answers = iter([False, True])
    limits = Limits(-0.5, 0.0)  # which nothing meets, so that the second method is tried, too
    decide(trained, tmp_path / "model.onnx", limits=limits, should_stop=lambda: next(answers))
    assert next(answers, "none left") == "none left"
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "histogram" not in printed.err
    assert not [record for record in caplog.records if record.name == "root"]
