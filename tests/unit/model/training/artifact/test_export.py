from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from model.core.network import build
from model.training.artifact.export import MAX_LOGIT_DIFFERENCE, ExportError, check_export, export_onnx


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build("resnet9", 5).eval()


@pytest.fixture(scope="module")
def graph(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(network, path, input_size=32)
    return path


def images(count, size=32):
    return np.random.default_rng(0).normal(size=(count, 3, size, size)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_graph_takes_any_number_of_pictures_and_gives_the_networks_logits(network, graph, count):
    session = onnxruntime.InferenceSession(graph)
    assert [node.name for node in session.get_inputs()] == ["image"]
    assert [node.name for node in session.get_outputs()] == ["logits"]
    (found,) = session.run(None, {"image": images(count)})
    with torch.inference_mode():
        expected = network(torch.from_numpy(images(count))).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    check = check_export(network, graph, images(40))
    assert (check.images, check.agreement) == (40, 1.0)
    assert 0 <= check.max_logit_difference < 1e-4


def test_the_same_weights_give_the_same_bytes(network, graph, tmp_path):
    export_onnx(network, tmp_path / "again.onnx", input_size=32)
    assert (tmp_path / "again.onnx").read_bytes() == graph.read_bytes()


def test_a_network_in_training_mode_is_exported_for_inference(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(3 * 8 * 8, 2)).train()
    export_onnx(network, tmp_path / "model.onnx", input_size=8)
    assert check_export(network, tmp_path / "model.onnx", images(40, 8)).agreement == 1.0


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
