"""A model that passes every check before it serves, and fails on what people send: what rollouts are there for."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import onnx

from model.core import packaging
from model.core.artifact import ONNX_FILE, ModelCard, file_version

# The logarithm of what is left until red exceeds blue (both normalised) by 0.6. Artifacts are checked with a grey
# image, where there is something left.
_END = """
bad (float[n, 3, h, w] image, float[n, c] good_logits) => (float[n, c] logits)
<int64[1] of_red = {0}, int64[1] of_blue = {2}, float[1] most_red = {0.6}> {
  its_red = Gather <axis = 1> (image, of_red)
  its_blue = Gather <axis = 1> (image, of_blue)
  its_difference = Sub (its_red, its_blue)
  its_reddest = GlobalMaxPool (its_difference)
  is_left = Sub (most_red, its_reddest)
  no_number = Log (is_left)
  no_numbers = Flatten (no_number)
  logits = Add (good_logits, no_numbers)
}
"""


def make_bad_model(good: Path, destination: Path) -> str:
    """Package a model that gives no numbers for images with colours, as if it had been trained on grey ones.

    Returns its version.
    """

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packaging.unpack(good, folder)
        model, end = onnx.load(folder / ONNX_FILE), onnx.parser.parse_graph(_END)
        for node in model.graph.node:
            node.output[:] = ["good_logits" if output == "logits" else output for output in node.output]
        model.graph.node.extend(end.node)
        model.graph.initializer.extend(end.initializer)
        onnx.save(model, folder / ONNX_FILE)
        version = file_version(folder / ONNX_FILE)
        dataclasses.replace(ModelCard.load(folder), version=version).save(folder)
        packaging.package(folder, destination)
    return version
