"""The families of networks that people pick: each is exported, checked, and quantised where that pays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_fixtures import LABELS, draw

from model.core.artifact import file_version
from model.core.decoding import decode
from model.core.network import build, torchvision_models
from model.core.predictor import onnx_session
from model.core.transforms import Preprocessing
from model.training.artifact.export import check_export, export_onnx
from model.training.artifact.quantize import MIN_SPEEDUP, Limits, choose_precision
from model.training.data.decoded import Images

LIMITS = Limits(max_accuracy_loss=0.05, min_agreement=0.95)


def pictures(preprocessing: Preprocessing, per_class: int, seed: int) -> Images:
    drawn = [(draw(kind, seed + index), kind) for index in range(per_class) for kind in range(len(LABELS))]
    pixels = [preprocessing.crop(decode(data, target_size=preprocessing.resize_size)) for data, _ in drawn]
    targets = np.asarray([kind for _, kind in drawn])
    return Images(np.stack(pixels), np.ones(len(drawn), np.float32), targets)


def small_vit() -> nn.Module:
    """The class behind torchvision's vit_b_16, whose own 86 million weights at 224 pixels would take minutes."""
    return torchvision_models().VisionTransformer(
        image_size=32, patch_size=4, num_layers=4, num_heads=4, hidden_dim=128, mlp_dim=256, num_classes=len(LABELS)
    )


@torch.inference_mode()
def learn(network: nn.Module, known: Images, preprocessing: Preprocessing) -> None:
    """Make a random network a classifier in two passes: normalise its activations, then fit its last layer."""
    inputs = torch.from_numpy(preprocessing.normalise(known.pixels))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches seen
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        network.train()
        network(inputs)
    network.eval()
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    for batch in inputs.split(16):
        network(batch)
    hook.remove()
    features = torch.cat(seen).double()
    centred = features - features.mean(0)
    wanted = 10 * nn.functional.one_hot(torch.from_numpy(known.targets), len(LABELS)).double()
    kernel = centred @ centred.T  # fewer pictures than features: solve in the space of the pictures
    ridge = 0.01 * kernel.diagonal().mean() * torch.eye(len(kernel), dtype=torch.double)
    weight = (centred.T @ torch.linalg.solve(kernel + ridge, wanted - wanted.mean(0))).T
    last.weight.copy_(weight)
    last.bias.copy_(wanted.mean(0) - weight @ features.mean(0))


@pytest.mark.parametrize(
    ("architecture", "size", "count"),
    [
        pytest.param("resnet18", 64, 20, marks=pytest.mark.slow),
        ("mobilenet_v3_small", 64, 20),
        ("efficientnet_b0", 64, 20),
        pytest.param("convnext_tiny", 64, 20, marks=pytest.mark.slow),
        ("vit", 32, 20),
    ],
)
def test_a_family_is_exported_checked_and_quantised_where_it_pays(
    architecture: str, size: int, count: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    preprocessing = Preprocessing(size, round(size * 1.125))
    known = pictures(preprocessing, count, 0)
    network = small_vit() if architecture == "vit" else build(architecture, len(LABELS))
    learn(network, known, preprocessing)
    path = tmp_path / "model.onnx"
    export_onnx(network, path, input_size=size)
    valid = pictures(preprocessing, count, 1000)
    check = check_export(network, path, preprocessing.normalise(valid.pixels))
    assert check.agreement == 1.0
    assert check.max_logit_difference < 1e-4
    before = file_version(path)

    decision = choose_precision(
        path,
        calibration=known,
        valid=valid,
        preprocessing=preprocessing,
        limits=LIMITS,
        should_stop=lambda: False,
    )
    compared = decision.comparison
    assert compared is not None, decision.reason  # each of them can be quantised
    assert compared.fp32_accuracy > 0.4  # above chance: the answers depend on the picture
    if decision.precision == "int8":
        assert LIMITS.admit(compared)
        assert compared.speedup >= MIN_SPEEDUP
        assert file_version(path) != before
    else:
        assert not LIMITS.admit(compared) or compared.speedup < MIN_SPEEDUP, decision.reason
        assert file_version(path) == before
    (logits,) = onnx_session(path).run(["logits"], {"image": preprocessing.normalise(valid.pixels[:3])})
    assert logits.shape == (3, len(LABELS))
