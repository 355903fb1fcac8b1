"""A small but real model for the serving tests: it tells red, green and blue images apart, and needs no PyTorch."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from PIL import Image

from model.core.artifact import ONNX_FILE, WEIGHTS_FILE, ModelCard, file_version

LABELS = ("001.Red_Setter", "002.Grüner_Hund", "003.Blue_Terrier")
DISPLAY_LABELS = ("Red Setter", "Grüner Hund", "Blue Terrier")
COLOURS = ("red", "lime", "blue")
INPUT_SIZE = 16

_GRAPH = Path(__file__).with_name("colours.txt").read_text(encoding="utf-8")


def write_onnx(
    path: Path, *, outputs: int = 3, gain: float = 4.0, input_name: str = "image", blue_steps: int = 0
) -> None:
    """Write a network whose logits are the mean values of the channels times `gain`.

    With `blue_steps`, an entirely blue image additionally costs so many multiplications of 256 x 256 matrices: an image
    that takes long, while the others, and the black one that warms the model up, do not.
    """
    weights = np.zeros((outputs, 3), np.float32)
    weights[np.arange(min(outputs, 3)), np.arange(min(outputs, 3))] = gain
    text = _GRAPH.format(image=input_name, outputs=outputs, steps=blue_steps / gain if blue_steps else 0.0)
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(weights[:, :, None, None], "weights"))
    onnx.save(model, path)


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


def image_bytes(colour: str = "red", size: tuple[int, int] = (40, 30), file_format: str = "PNG") -> bytes:
    return encode(Image.new("RGB", size, colour), file_format)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of under a hundred bytes whose header promises any number of pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
