"""int8 graphs: static quantisation with ONNX Runtime.

Weights as int8 with one scale per channel, activations as uint8 with one scale per tensor, whose range is measured on
training images. docs/measurements/training.md has the figures behind the choices made here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from ...core.predictor import FloatArray
from ...core.transforms import Preprocessing
from ..data.decoded import Images

CALIBRATION_IMAGES = 128
# Images that are calibrated with at a time, whose activations are in memory together.
_CALIBRATION_BATCH = 8

# The layers that do the work. Everything around them stays in fp32, which costs less than a tenth of the time where
# int8 pays at all, and spares what int8 hurts most: softmax, layer normalisation, squeeze-and-excitation.
_WORKING_OPERATORS = ("Conv", "Gemm", "MatMul")
# These vanish into the range of the layer before them, which then need not hold what they cut off.
_ABSORBED_OPERATORS = ("Relu", "Clip")


class Quantizer:
    """Makes int8 graphs of one fp32 graph, in a folder; the input of the graph is "image"."""

    def __init__(self, path: Path, folder: Path, calibration: Images, preprocessing: Preprocessing) -> None:
        self._calibration, self._preprocessing = calibration, preprocessing
        self._prepared, self._ranges, self._int8 = (folder / name for name in ("prepared.onnx", "ranges.json", "int8"))
        # Fuses what can be fused and writes down every tensor's shape, both of which the quantiser needs.
        quant_pre_process(path, self._prepared, skip_symbolic_shape=True)
        self.layers = [node.name for node in onnx.load(self._prepared).graph.node if node.op_type in _WORKING_OPERATORS]

    def quantize(self, kept: Sequence[str] = ()) -> Path:
        """Quantise all layers but those `kept`; return the graph's file, which the next call replaces."""
        logging.disable(logging.INFO)  # the quantiser tells its steps to the root logger
        try:
            quantize_static(
                self._prepared,
                self._int8,
                _CalibrationReader(self._calibration, self._preprocessing),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=[*_WORKING_OPERATORS, *_ABSORBED_OPERATORS],
                nodes_to_exclude=list(kept),
                # The second attempt takes the ranges that the first one has measured.
                calibration_cache_path=self._ranges,
            )
        finally:
            logging.disable(logging.NOTSET)
        return self._int8


class _CalibrationReader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, images: Images, preprocessing: Preprocessing) -> None:
        starts = range(0, len(images), _CALIBRATION_BATCH)
        self._batches = (
            {"image": preprocessing.normalise(images.pixels[start : start + _CALIBRATION_BATCH])} for start in starts
        )

    def get_next(self) -> dict[str, FloatArray] | None:
        return next(self._batches, None)
