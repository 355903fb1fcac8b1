"""Whether a model ships as int8: quantise its graph, compare the two, and keep int8 only where it has earned its place.

Static quantisation: weights as int8 with one scale per channel, activations as uint8 with one scale per tensor, whose
range is measured on training images. docs/measurements/training.md has the figures behind the choices made here.
"""

from __future__ import annotations

import contextlib
import logging
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from ...core.predictor import FloatArray, onnx_session, softmax
from ...core.transforms import Preprocessing
from ..data.decoded import Images
from ..loop.evaluation import evaluate_probabilities, graph_logits
from ..whole_files import write_whole

log = logging.getLogger(__name__)

CALIBRATION_IMAGES = 128
# int8 must be this much faster to be worth any difference at all; less than a tenth is noise on a shared machine.
MIN_SPEEDUP = 1.1
# Of each graph, one image at a time.
TIMED_RUNS = 21
# Where all layers in int8 are too inexact, this many stay in float32: the last ones, which are the most sensitive.
KEPT_LAYERS = 2
# Images that are calibrated with at a time, whose activations are in memory together.
_CALIBRATION_BATCH = 8

# The layers that do the work. Everything around them stays in fp32, which costs less than a tenth of the time where
# int8 pays at all, and spares what int8 hurts most: softmax, layer normalisation, squeeze-and-excitation.
_WORKING_OPERATORS = ("Conv", "Gemm", "MatMul")
# These vanish into the range of the layer before them, which then need not hold what they cut off.
_ABSORBED_OPERATORS = ("Relu", "Clip")


@dataclass(frozen=True)
class Limits:
    """What int8 may cost on the validation images: accuracy, and the share with the same most probable class."""

    max_accuracy_loss: float
    min_agreement: float

    @property
    def min_images(self) -> int:
        """Fewer images than this cannot show a disagreement as small as the one that is allowed."""
        return math.ceil(1 / (1 - self.min_agreement)) if self.min_agreement < 1 else 1

    def admit(self, comparison: Comparison) -> bool:
        """Return whether int8 stays within the limits."""
        return (
            comparison.fp32_accuracy - comparison.int8_accuracy <= self.max_accuracy_loss + 1e-9
            and comparison.agreement >= self.min_agreement - 1e-9
        )


@dataclass(frozen=True)
class Comparison:
    """An int8 graph beside the fp32 graph it was made from, on images of the validation split."""

    images: int
    agreement: float  # the share with the same most probable class
    fp32_accuracy: float
    int8_accuracy: float
    fp32_loss: float  # cross-entropy in nats
    int8_loss: float
    fp32_ms: float  # processor time for one image on one thread, without decoding
    int8_ms: float
    calibration_images: int  # of the training split
    kept_fp32: tuple[str, ...]  # the last layers, where they had to stay in fp32

    @property
    def speedup(self) -> float:
        """How many times as fast int8 is."""
        return self.fp32_ms / self.int8_ms

    def cost(self) -> str:
        """Return what int8 costs, in words."""
        return (
            f"accuracy {self.int8_accuracy:.2%} instead of {self.fp32_accuracy:.2%} and {self.agreement:.2%} agreement "
            f"on {self.images} validation images"
        )


@dataclass(frozen=True)
class Decision:
    """Which precision ships, "fp32" or "int8", and why; the comparison is of the graph that came nearest to int8."""

    precision: str
    reason: str
    limits: Limits
    comparison: Comparison | None
    machine: str
    seconds: float


def choose_precision(
    path: Path,
    *,
    calibration: Images,
    valid: Images,
    preprocessing: Preprocessing,
    limits: Limits,
    should_stop: Callable[[], bool],
) -> Decision:
    """Replace an fp32 graph by its int8 form where that is faster and as good; otherwise leave it as it is.

    It never raises an error: whatever goes wrong here, there is a trained model that works. The images are of the
    training and the validation split, cut as the server cuts them. `should_stop` is asked between the two attempts.
    """
    started = time.perf_counter()

    def decide(precision: str, reason: str, comparison: Comparison | None = None) -> Decision:
        machine = f"{cpu_model()}, {platform.machine()}, one thread"
        return Decision(precision, reason, limits, comparison, machine, time.perf_counter() - started)

    if len(valid) < limits.min_images:
        return decide(
            "fp32",
            f"{len(valid)} validation images cannot show an agreement of {limits.min_agreement:.2%}; "
            f"at least {limits.min_images} are needed",
        )
    try:
        with tempfile.TemporaryDirectory(prefix="quantize-") as folder:
            quantizer = _Quantizer(path, Path(folder), calibration, valid, preprocessing)
            layers = quantizer.layers
            if not layers:
                return decide("fp32", "the network has no layer that int8 makes faster")
            attempts: list[Comparison] = []
            for kept in ([], layers[-KEPT_LAYERS:]):
                if attempts and should_stop():
                    return decide("fp32", "the training was asked to stop before int8 was settled", attempts[0])
                attempts.append(found := quantizer.attempt(kept))
                if found.speedup < MIN_SPEEDUP:
                    but = f" with {len(kept)} layers in fp32" if kept else ""
                    return decide("fp32", f"int8{but} is only {found.speedup:.2f} times as fast as fp32 here", found)
                if limits.admit(found):
                    write_whole(path, quantizer.int8.read_bytes())
                    return decide("int8", f"{found.speedup:.2f} times as fast, {found.cost()}", found)
                log.info("int8 (%d layers in fp32): %s", len(kept), found.cost())
    except Exception as error:  # the quantiser raises whatever the graph makes it stumble over
        log.warning("int8 was given up", exc_info=True)
        return decide("fp32", f"the network cannot be quantised: {type(error).__name__}: {error}"[:500])
    best = max(attempts, key=lambda attempt: attempt.agreement)
    return decide(
        "fp32",
        f"int8 costs too much: {best.cost()}; allowed are a loss of {100 * limits.max_accuracy_loss:g} points and an "
        f"agreement of {limits.min_agreement:.2%}",
        best,
    )


class _Quantizer:
    """Makes int8 graphs of one fp32 graph, in a temporary folder, and compares them with it."""

    def __init__(
        self, path: Path, folder: Path, calibration: Images, valid: Images, preprocessing: Preprocessing
    ) -> None:
        self._calibration, self._valid, self._preprocessing = calibration, valid, preprocessing
        self._prepared, self._ranges, self.int8 = (folder / name for name in ("prepared.onnx", "ranges.json", "int8"))
        # Fuses what can be fused and writes down every tensor's shape, both of which the quantiser needs.
        quant_pre_process(path, self._prepared, skip_symbolic_shape=True)
        self.layers = [node.name for node in onnx.load(self._prepared).graph.node if node.op_type in _WORKING_OPERATORS]
        self._fp32 = onnx_session(path)
        self._expected = graph_logits(self._fp32, preprocessing, valid.pixels)

    def attempt(self, kept: Sequence[str]) -> Comparison:
        """Quantise all layers but those `kept`."""
        logging.disable(logging.INFO)  # the quantiser tells its steps to the root logger
        try:
            quantize_static(
                self._prepared,
                self.int8,
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
        int8, valid = onnx_session(self.int8), self._valid
        found = graph_logits(int8, self._preprocessing, valid.pixels)
        if not np.isfinite(found).all():
            raise ArithmeticError("the int8 graph's logits are not finite")
        before, after = (evaluate_probabilities(softmax(logits), valid.targets) for logits in (self._expected, found))
        fp32_ms, int8_ms = _milliseconds([self._fp32, int8], self._preprocessing.normalise(valid.pixels[:1]))
        return Comparison(
            images=len(valid),
            agreement=float((self._expected.argmax(1) == found.argmax(1)).mean()),
            fp32_accuracy=before.accuracy,
            int8_accuracy=after.accuracy,
            fp32_loss=before.loss,
            int8_loss=after.loss,
            fp32_ms=fp32_ms,
            int8_ms=int8_ms,
            calibration_images=len(self._calibration),
            kept_fp32=tuple(kept),
        )


class _CalibrationReader(CalibrationDataReader):
    def __init__(self, images: Images, preprocessing: Preprocessing) -> None:
        starts = range(0, len(images), _CALIBRATION_BATCH)
        self._batches = (
            {"image": preprocessing.normalise(images.pixels[start : start + _CALIBRATION_BATCH])} for start in starts
        )

    def get_next(self) -> dict[str, FloatArray] | None:
        return next(self._batches, None)


def _milliseconds(sessions: Sequence[onnxruntime.InferenceSession], image: FloatArray) -> list[float]:
    """Return each session's median processor time for one image, of alternating runs."""
    times: list[list[float]] = [[] for _ in sessions]
    for session in sessions:  # the first run allocates
        session.run(["logits"], {"image": image})
    for _ in range(TIMED_RUNS):
        for session, own in zip(sessions, times, strict=True):
            started = time.thread_time()
            session.run(["logits"], {"image": image})
            own.append(time.thread_time() - started)
    return [1000 * statistics.median(own) for own in times]


def cpu_model() -> str:
    """Return the processor's name as the system tells it."""
    with contextlib.suppress(OSError):  # not Linux
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
