"""From a trained PyTorch network to an ONNX graph that is known to give the same answers."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from ...core.network import made_for
from ...core.predictor import onnx_session

# Served by ONNX Runtime 1.14 and newer, and all that torchvision's networks need.
OPSET = 17
# Logits of a trained network are of the order of 10; float32 sums in another order differ by about 1e-6 of that.
# Anything near this limit is a wrong graph and not rounding.
MAX_LOGIT_DIFFERENCE = 1e-3
_CHECK_BATCH = 32


class ExportError(Exception):
    """The network cannot be exported, or the graph does not give the network's answers."""


@dataclass(frozen=True)
class ExportCheck:
    """How the graph compares with the network: logits relative to the largest, and the share of the same answers."""

    images: int
    max_logit_difference: float
    agreement: float


def export_onnx(network: nn.Module, path: Path, *shape: int) -> None:
    """Write a network as an ONNX graph, or raise ExportError; the same weights give the same bytes.

    Its input is "image", float32 [N, *shape]; its output "logits", float32 [N, classes]; N is free.
    """
    network = network.to("cpu").eval()
    # Two images, because a batch of one is where tracing takes a shape for a constant.
    example = torch.zeros(2, *shape)
    try:
        # torch always turns its log on: it tests the function that says whether it is, and does not call it
        # (setup_onnx_logging). So a failing exporter would print its whole graph.
        with warnings.catch_warnings(), mock.patch.object(torch._C, "_jit_onnx_log"):
            # torch's newer exporter needs onnxscript; for networks without control flow the tracing one is complete.
            # It announces its age on every call.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network, (example,), path, dynamo=False, opset_version=OPSET,
                input_names=["image"], output_names=["logits"],
                dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            )  # fmt: skip
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:  # whatever torch and ONNX stumble over
        reason = re.split(r"\.? Please feel free| +\[Caused by|\n", str(error))[0]  # pages of graph may follow
        raise ExportError(f"the network cannot be exported to ONNX: {reason}") from error


def try_export(network: nn.Module, architecture: str, input_size: int) -> None:
    """Export a network that is not trained yet, and check the graph; raise ExportError with the way out if that fails.

    The network is on the CPU, and is left as it was.
    """
    if (error := _failure(network, input_size)) is None:
        return
    size = made_for(architecture).input_size
    advice = "Take" if _failure(network, size) else f"--input-size {size} works; or take"
    raise ExportError(
        f"{architecture} at {input_size} x {input_size} pixels: {error}. {advice} another --architecture"
    ) from error


def _failure(network: nn.Module, input_size: int) -> Exception | None:
    training = network.training
    # Not torch's generator, whose numbers the training needs.
    images = np.random.default_rng(0).standard_normal((2, 3, input_size, input_size), dtype=np.float32)
    try:
        with tempfile.TemporaryDirectory(prefix="export-") as folder:
            path = Path(folder, "model.onnx")
            export_onnx(network, path, 3, input_size, input_size)
            check_export(network, path, images)
    except Exception as error:  # whatever an unfit network raises; ONNX Runtime's errors have no class in common
        return error
    finally:
        network.train(training)
    return None


@torch.inference_mode()
def check_export(network: Callable[[Tensor], Tensor], path: Path, images: npt.NDArray[np.float32]) -> ExportCheck:
    """Compare a graph with the network it was made from, which is on the CPU and in evaluation mode.

    `images` are float32 [N, 3, S, S], real ones, preprocessed; on noise a network's answers are near ties. Raises
    ExportError when a logit differs by more than `MAX_LOGIT_DIFFERENCE`.
    """
    session = onnx_session(path, torch.get_num_threads())
    batches = [images[start : start + _CHECK_BATCH] for start in range(0, len(images), _CHECK_BATCH)]
    expected = np.concatenate([network(torch.from_numpy(batch)).numpy() for batch in batches])
    found = np.concatenate([session.run(["logits"], {"image": batch})[0] for batch in batches])
    difference = float(np.abs(expected - found).max() / max(1.0, np.abs(expected).max()))
    check = ExportCheck(len(images), difference, float((expected.argmax(1) == found.argmax(1)).mean()))
    if not difference <= MAX_LOGIT_DIFFERENCE:  # written so that a NaN fails, too
        raise ExportError(
            f"the ONNX graph does not give the network's answers: logits differ by up to {difference:.3g}, allowed is "
            f"{MAX_LOGIT_DIFFERENCE:g}; {check.agreement:.1%} of {len(images)} images get the same class"
        )
    return check
