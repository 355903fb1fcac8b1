"""A small but real model for the serving tests: it tells red, green and blue pictures apart, and needs no PyTorch."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from model.core.artifact import ONNX_FILE, WEIGHTS_FILE, ModelCard, file_version

LABELS = ("001.Red_Setter", "002.Grüner_Hund", "003.Blue_Terrier")
DISPLAY_LABELS = ("Red Setter", "Grüner Hund", "Blue Terrier")
COLOURS = ("red", "lime", "blue")
INPUT_SIZE = 16


def write_onnx(
    path: Path, *, outputs: int = 3, gain: float = 4.0, input_name: str = "image", blue_steps: int = 0
) -> None:
    """Write a network whose logits are the mean values of the channels times `gain`.

    With `blue_steps`, an entirely blue picture additionally costs so many multiplications of 256 x 256 matrices:
    a picture that takes long, while the others, and the black one that warms the model up, do not.
    """
    weights = np.zeros((outputs, 3, 1, 1), np.float32)
    weights[np.arange(min(outputs, 3)), np.arange(min(outputs, 3))] = gain
    nodes = [
        helper.make_node("Conv", [input_name, "weights"], ["mixed"]),
        helper.make_node("GlobalAveragePool", ["mixed"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits" if not blue_steps else "fast_logits"]),
    ]
    constants = [numpy_helper.from_array(weights, "weights")]
    if blue_steps:
        step = helper.make_graph(
            [
                helper.make_node("MatMul", ["matrix", "mixer"], ["product"]),
                helper.make_node("Softmax", ["product"], ["next"]),
                helper.make_node("Identity", ["go_on"], ["go_on_after"]),
            ],
            "step",
            [
                helper.make_tensor_value_info("index", TensorProto.INT64, []),
                helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("matrix", TensorProto.FLOAT, [256, 256]),
            ],
            [
                helper.make_tensor_value_info("go_on_after", TensorProto.BOOL, []),
                helper.make_tensor_value_info("next", TensorProto.FLOAT, [256, 256]),
            ],
        )
        constants += [
            numpy_helper.from_array(np.array([2], np.int64), "blue"),
            numpy_helper.from_array(np.array([blue_steps / gain], np.float32), "steps_each"),
            numpy_helper.from_array(np.array(True), "true"),
            numpy_helper.from_array(np.eye(256, dtype=np.float32), "mixer"),
            numpy_helper.from_array(np.array([256, 256], np.int64), "square"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            numpy_helper.from_array(np.array([], np.int64), "scalar"),
        ]
        nodes += [
            helper.make_node("Gather", ["fast_logits", "blue"], ["blue_logit"], axis=1),
            helper.make_node("Mul", ["blue_logit", "steps_each"], ["steps_float"]),
            helper.make_node("Cast", ["steps_float"], ["steps_square"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["steps_square", "scalar"], ["steps"]),
            helper.make_node("Expand", ["blue_logit", "square"], ["start"]),
            helper.make_node("Loop", ["steps", "true", "start"], ["end"], body=step),
            helper.make_node("ReduceMean", ["end"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["fast_logits", "nothing"], ["logits"]),
        ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["n", 3, INPUT_SIZE, INPUT_SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", outputs])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def make_card(onnx_path: Path, **changes: object) -> ModelCard:
    values: dict[str, object] = {
        "name": "colours",
        "version": file_version(onnx_path),
        "architecture": "resnet18",
        "labels": LABELS,
        "display_labels": DISPLAY_LABELS,
        "input_size": INPUT_SIZE,
        "resize_size": INPUT_SIZE,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    return ModelCard(**(values | changes))  # type: ignore[arg-type]


def make_artifact(folder: Path, *, blue_steps: int = 0, **card: object) -> Path:
    """Write an artifact that ONNX Runtime serves; the file for PyTorch's weights is there, but empty."""
    folder.mkdir(parents=True, exist_ok=True)
    write_onnx(folder / ONNX_FILE, blue_steps=blue_steps)
    (folder / WEIGHTS_FILE).write_bytes(b"")
    make_card(folder / ONNX_FILE, **card).save(folder)
    return folder


def encode(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def picture(colour: str = "red", size: tuple[int, int] = (40, 30), file_format: str = "PNG") -> bytes:
    return encode(Image.new("RGB", size, colour), file_format)


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of under a hundred bytes whose header promises any number of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
