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
from model.core.predictor import onnx_session
from model.core.transforms import Preprocessing
from model.training.artifact.export import check_export, export_onnx
from model.training.artifact.quantize import MIN_SPEEDUP, Limits, choose_precision
from model.training.data.decoded import Images

LIMITS = Limits(max_accuracy_loss=0.05, min_agreement=0.95)


def drawn_images(preprocessing: Preprocessing, seed: int) -> Images:
    drawn = [(draw(kind, seed + index), kind) for index in range(20) for kind in range(len(LABELS))]
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
        ("mobilenet_v3_small", 64),
        ("efficientnet_b0", 64),
        pytest.param("convnext_tiny", 64, marks=pytest.mark.slow),
        ("vit", 32),
    ],
)
def test_a_family_is_exported_checked_and_quantised_where_it_pays(architecture: str, size: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    preprocessing = Preprocessing(size, round(size * 1.125))
    known, valid = drawn_images(preprocessing, 0), drawn_images(preprocessing, 1000)
    network = network_of(architecture, size)
    with torch.inference_mode():  # the statistics of batch normalisation, so that activations have a usual size
        network(torch.from_numpy(preprocessing.normalise(known.pixels)))
    network.eval()
    path = tmp_path / "model.onnx"
    export_onnx(network, path, input_size=size)
    check = check_export(network, path, preprocessing.normalise(valid.pixels))
    assert check.agreement == 1.0
    assert check.max_logit_difference < 1e-4
    before = file_version(path)
    decision = choose_precision(
        path, calibration=known, valid=valid, preprocessing=preprocessing, limits=LIMITS, should_stop=lambda: False
    )
    compared = decision.comparison
    assert compared is not None, decision.reason  # each of them can be quantised
    pays = LIMITS.admit(compared) and compared.speedup >= MIN_SPEEDUP
    assert (decision.precision == "int8") == pays == (file_version(path) != before), decision.reason
    (logits,) = onnx_session(path).run(["logits"], {"image": preprocessing.normalise(valid.pixels[:3])})
    assert logits.shape == (3, len(LABELS))
