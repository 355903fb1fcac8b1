"""The families of networks that people pick: each is exported, checked, and can be quantised."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_fixtures import LABELS, draw

from model.core.artifact import file_version
from model.core.decoding import decode
from model.core.network import build, torchvision_models
from model.core.transforms import Preprocessing
from model.training.artifact.changes import Limits
from model.training.artifact.export import check_export, export_onnx
from model.training.artifact.precision import MIN_SPEEDUP, choose_precision
from model.training.data.decoded import Images

SLOW = pytest.mark.slow


def drawn_images(preprocessing: Preprocessing, seed: int) -> Images:
    drawn = [(draw(kind, seed + index), kind) for index in range(8) for kind in range(len(LABELS))]
    pixels = [preprocessing.crop(decode(data, target_size=preprocessing.resize_size)) for data, _ in drawn]
    return Images(np.stack(pixels), np.ones(len(drawn), np.float32), np.asarray([kind for _, kind in drawn]))


def network_of(architecture: str, size: int) -> nn.Module:
    if architecture != "vit":
        return build(architecture, len(LABELS))
    # The class behind torchvision's vit_b_16, whose own 86 million weights at 224 pixels would take minutes.
    sizes = {"image_size": size, "patch_size": 4, "hidden_dim": 128, "mlp_dim": 256}
    return torchvision_models().VisionTransformer(**sizes, num_layers=4, num_heads=4, num_classes=len(LABELS))


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        *(pytest.param(name, 64, marks=SLOW) for name in ("mobilenet_v3_small", "efficientnet_b0", "convnext_tiny")),
        ("vit", 32),
    ],
)
def test_a_family_is_exported_checked_and_quantised_where_it_pays(architecture: str, size: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    preprocessing, limits = Preprocessing(size, round(size * 1.125)), Limits(max_accuracy_loss=0.2, min_agreement=0.8)
    known, valid = drawn_images(preprocessing, 0), drawn_images(preprocessing, 1000)
    network = network_of(architecture, size)
    with torch.inference_mode():  # the statistics of batch normalisation, so that activations have a usual size
        network(torch.from_numpy(preprocessing.normalise(known.pixels)))
    path = tmp_path / "model.onnx"
    export_onnx(network.eval(), path, 3, size, size)
    check = check_export(network, path, preprocessing.normalise(valid.pixels))
    assert (check.agreement, check.max_logit_difference < 1e-4) == (1.0, True)
    before = file_version(path)
    images = {"calibration": known, "valid": valid, "training": drawn_images(preprocessing, 2000)}
    asked = {"limits": limits, "threads": 1, "should_stop": lambda: False}
    decision = choose_precision(path, **images, preprocessing=preprocessing, **asked)
    compared = decision.comparison
    assert compared is not None, decision.reason  # each of them can be quantised
    pays = limits.admit(compared.valid, compared.training) and compared.speedup >= MIN_SPEEDUP
    assert (decision.precision == "int8") == pays == (file_version(path) != before), decision.reason
