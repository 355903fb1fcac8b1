from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from model.core.network import build
from model.training.artifact.export import MAX_LOGIT_DIFFERENCE, ExportError, check_export, export_onnx


def images(count, size=32):
    return np.random.default_rng(0).normal(size=(count, 3, size, size)).astype(np.float32)


def test_the_graph_takes_any_number_of_images_and_the_same_weights_give_the_same_bytes(tmp_path):
    torch.manual_seed(0)
    network, graph = build("resnet9", 5), tmp_path / "model.onnx"  # in training mode: it has dropout
    export_onnx(network, graph, input_size=32)
    session = onnxruntime.InferenceSession(graph)
    for count in (1, 7):
        (found,) = session.run(["logits"], {"image": images(count)})
        with torch.inference_mode():
            np.testing.assert_allclose(found, network(torch.from_numpy(images(count))).numpy(), atol=1e-4)
    check = check_export(network, graph, images(40))
    assert (check.images, check.agreement) == (40, 1.0)
    assert 0 <= check.max_logit_difference < 1e-4
    export_onnx(network, tmp_path / "again.onnx", input_size=32)
    assert (tmp_path / "again.onnx").read_bytes() == graph.read_bytes()


@pytest.mark.parametrize(
    ("change", "refused"),
    [(10 * MAX_LOGIT_DIFFERENCE, True), (float("nan"), True), (0.1 * MAX_LOGIT_DIFFERENCE, False)],
)
def test_the_limit_is_on_single_logits(tmp_path, change, refused):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).eval()
    export_onnx(network, tmp_path / "model.onnx", input_size=8)
    with torch.no_grad():
        network[1].bias[2] += change
    message = pytest.raises(ExportError, match=r"logits differ by up to .*, allowed is 0\.001")
    with message if refused else nullcontext():
        check_export(network, tmp_path / "model.onnx", images(8, 8) / 100)


class Untraceable(nn.Module):
    def forward(self, batch):
        return torch.linalg.eigvals(batch.mean(dim=1)).real


def test_a_network_that_onnx_cannot_express_is_an_error_in_words(tmp_path):
    with pytest.raises(ExportError, match="cannot be exported to ONNX"):
        export_onnx(Untraceable(), tmp_path / "model.onnx", input_size=8)
