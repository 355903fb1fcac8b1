"""Whether a model ships as int8: quantise its graph, compare the two, and keep int8 only where it has earned its place.

Static quantisation: weights as int8 with one scale per channel, activations as uint8 with one scale per tensor, whose
range is measured on training images. The validation images, as the server would see them, then say what that cost.
docs/measurements/training.md has the figures behind the choices made here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from ...core.predictor import FloatArray, onnx_session, softmax
from ...core.transforms import Preprocessing
from ..data.dataset import Pictures
from ..environment import cpu_model
from ..loop.evaluation import evaluate_probabilities, graph_logits
from ..whole_files import write_whole

log = logging.getLogger(__name__)

CALIBRATION_IMAGES = 128
# int8 must be this much faster to be worth any difference at all; less than a tenth is noise on a shared machine.
MIN_SPEEDUP = 1.1
# Runs of each graph, alternating, one image at a time.
TIMED_RUNS = 21
# In networks with sensitive layers, the graph is cut into so many runs of layers, and the worst 1, 2 or 4 stay in fp32.
SECTIONS = 8
KEPT_SECTIONS = (1, 2, 4)
# How much a section alone disturbs the logits shows on a few images.
RANKING_IMAGES = 32
# Calibration keeps every activation of this many images in memory, 100 MB each for a ResNet-50 at 224 pixels.
_CALIBRATION_BATCH = 8

# The layers that do the work. Everything around them stays in fp32, which costs less than a tenth of the time where
# int8 pays at all, and spares what int8 hurts most: softmax, layer normalisation, squeeze-and-excitation.
_WORKING_OPERATORS = ("Conv", "Gemm", "MatMul")
# These vanish into the range of the layer before them, which then need not hold what they cut off.
_ABSORBED_OPERATORS = ("Relu", "Clip")

# By name, ONNX Runtime's methods of turning the activations seen into a range. Min-max is tried first: it was the more
# faithful one on the networks measured. Cutting off the rarest values serves activations with a few huge ones.
_METHODS: dict[str, tuple[CalibrationMethod, dict[str, object]]] = {
    "min-max": (CalibrationMethod.MinMax, {}),
    "percentile 99.999": (
        CalibrationMethod.Percentile,
        {"CalibPercentile": 99.999, "CalibTensorRangeSymmetric": False},
    ),
}


@dataclass(frozen=True)
class Limits:
    """What int8 may cost on the validation images.

    Attributes
    ----------
    max_accuracy_loss : float
        Accuracy of fp32 less that of int8, both 0 to 1; 0.005 is half a point.
    min_agreement : float
        Share of images with the same most probable class in both, 0 to 1.
    """

    max_accuracy_loss: float
    min_agreement: float

    @property
    def min_images(self) -> int:
        """Fewer images than this cannot show a disagreement as small as the one that is allowed."""
        allowed = 1 - self.min_agreement
        return math.ceil(1 / allowed) if allowed > 0 else 1

    def admit(self, comparison: Comparison) -> bool:
        """Return whether int8 stays within the limits."""
        return (
            comparison.fp32_accuracy - comparison.int8_accuracy <= self.max_accuracy_loss + 1e-9
            and comparison.agreement >= self.min_agreement - 1e-9
        )


@dataclass(frozen=True)
class Comparison:
    """An int8 graph beside the fp32 graph it was made from.

    Attributes
    ----------
    images : int
        Of the validation split.
    agreement : float
        Share with the same most probable class, 0 to 1.
    fp32_accuracy, int8_accuracy : float
        0 to 1.
    fp32_loss, int8_loss : float
        Cross-entropy in nats.
    fp32_ms, int8_ms : float
        Processor time for one image on one thread, without decoding, in milliseconds; medians of alternating runs.
    method : str
        How the ranges of the activations were found.
    calibration_images : int
        Of the training split.
    kept_fp32 : tuple of str
        The layers that were too sensitive and stayed in fp32.
    """

    images: int
    agreement: float
    fp32_accuracy: float
    int8_accuracy: float
    fp32_loss: float
    int8_loss: float
    fp32_ms: float
    int8_ms: float
    method: str
    calibration_images: int
    kept_fp32: tuple[str, ...]

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
    """Which precision ships, and why.

    Attributes
    ----------
    precision : str
        "fp32" or "int8".
    reason : str
        For a person.
    limits : Limits
    comparison : Comparison or None
        Of the graph that ships or came nearest to it; None when none was made.
    machine : str
        Where the times were measured.
    seconds : float
        What finding out took.
    """

    precision: str
    reason: str
    limits: Limits
    comparison: Comparison | None
    machine: str
    seconds: float


def choose_precision(
    path: Path,
    *,
    calibration: Pictures,
    valid: Pictures,
    preprocessing: Preprocessing,
    limits: Limits,
    should_stop: Callable[[], bool],
) -> Decision:
    """Replace an fp32 graph by its int8 form where that is faster and as good; otherwise leave it as it is.

    Parameters
    ----------
    path : Path
        The ONNX graph, from "image" to "logits".
    calibration, valid : Pictures
        Of the training and the validation split, cut as the server cuts them (`Preprocessing.crop`).
    preprocessing : Preprocessing
    limits : Limits
    should_stop : callable
        Asked between the attempts; True ends them, and fp32 ships.

    Returns
    -------
    Decision
        Never an error: whatever goes wrong here, there is a trained model that works.
    """
    started = time.perf_counter()

    def decide(precision: str, reason: str, comparison: Comparison | None = None) -> Decision:
        return Decision(precision, reason, limits, comparison, _machine(), time.perf_counter() - started)

    if len(valid) < limits.min_images:
        return decide(
            "fp32",
            f"{len(valid)} validation images cannot show an agreement of {limits.min_agreement:.2%}; "
            f"at least {limits.min_images} are needed",
        )
    try:
        with tempfile.TemporaryDirectory(prefix="quantize-") as folder:
            trial = _Trial(path, Path(folder), calibration, valid, preprocessing)
            if not trial.layers:
                return decide("fp32", "the network has no layer that int8 makes faster")
            best: Comparison | None = None
            for attempt in trial.attempts():
                if best is None or attempt.agreement > best.agreement:
                    best = attempt
                if attempt.speedup < MIN_SPEEDUP:
                    kept = f" with {len(attempt.kept_fp32)} layers in fp32" if attempt.kept_fp32 else ""
                    return decide(
                        "fp32", f"int8{kept} is only {attempt.speedup:.2f} times as fast as fp32 here", attempt
                    )
                if limits.admit(attempt):
                    trial.ship()
                    return decide("int8", f"{attempt.speedup:.2f} times as fast, {attempt.cost()}", attempt)
                log.info("int8 (%s, %d layers in fp32): %s", attempt.method, len(attempt.kept_fp32), attempt.cost())
                if should_stop():
                    return decide("fp32", "the training was asked to stop before int8 was settled", best)
    except Exception as error:  # the quantiser raises whatever the graph makes it stumble over
        log.warning("int8 was given up", exc_info=True)
        return decide("fp32", f"the network cannot be quantised: {type(error).__name__}: {error}"[:500])
    assert best is not None  # there is always a first attempt
    return decide(
        "fp32",
        f"int8 costs too much: {best.cost()}; allowed are a loss of {100 * limits.max_accuracy_loss:g} points and an "
        f"agreement of {limits.min_agreement:.2%}",
        best,
    )


class _Trial:
    """The attempts at quantising one graph, in a temporary folder."""

    def __init__(
        self, path: Path, folder: Path, calibration: Pictures, valid: Pictures, preprocessing: Preprocessing
    ) -> None:
        self._path, self._folder = path, folder
        self._calibration, self._valid, self._preprocessing = calibration, valid, preprocessing
        self._prepared, self._candidate = folder / "prepared.onnx", folder / "int8.onnx"
        # Fuses what can be fused and writes down every tensor's shape, both of which the quantiser needs.
        quant_pre_process(path, self._prepared, skip_symbolic_shape=True)
        self._nodes = [(node.name, node.op_type) for node in onnx.load(self._prepared).graph.node]
        self.layers = [name for name, operator in self._nodes if operator in _WORKING_OPERATORS]
        self._fp32 = onnx_session(path)
        self._expected = self._logits(self._fp32, valid.pixels)

    def attempts(self) -> Iterator[Comparison]:
        """Yield one comparison after the other, the plainest way first."""
        tried = []
        for method in _METHODS:
            tried.append(self._attempt(method))
            yield tried[-1]
        method = max(tried, key=lambda comparison: comparison.agreement).method
        sections = self._sections_by_sensitivity(method)
        for count in KEPT_SECTIONS:
            if count < len(sections):
                yield self._attempt(method, keep=[name for section in sections[:count] for name in section])

    def ship(self) -> None:
        """Put the last attempt's graph in the place of the fp32 graph."""
        write_whole(self._path, self._candidate.read_bytes())

    def _attempt(self, method: str, *, keep: Sequence[str] = ()) -> Comparison:
        self._quantize(method, nodes_to_exclude=list(keep))
        int8 = onnx_session(self._candidate)
        found = self._logits(int8, self._valid.pixels)
        if not np.isfinite(found).all():
            raise ArithmeticError("the int8 graph's logits are not finite")
        before, after = (
            evaluate_probabilities(softmax(logits), self._valid.targets) for logits in (self._expected, found)
        )
        fp32_ms, int8_ms = _milliseconds([self._fp32, int8], self._preprocessing.normalise(self._valid.pixels[:1]))
        return Comparison(
            images=len(self._valid),
            agreement=float((self._expected.argmax(1) == found.argmax(1)).mean()),
            fp32_accuracy=before.accuracy,
            int8_accuracy=after.accuracy,
            fp32_loss=before.loss,
            int8_loss=after.loss,
            fp32_ms=fp32_ms,
            int8_ms=int8_ms,
            method=method,
            calibration_images=len(self._calibration),
            kept_fp32=tuple(name for name in self.layers if name in keep),
        )

    def _sections_by_sensitivity(self, method: str) -> list[list[str]]:
        """Return the graph's sections, first the one that, as the only one in int8, disturbs the logits most."""
        pixels = self._calibration.pixels[:RANKING_IMAGES]
        expected = self._logits(self._fp32, pixels)
        disturbance = []
        for section in self._sections():
            self._quantize(method, nodes_to_quantize=section)
            found = self._logits(onnx_session(self._candidate), pixels)
            disturbance.append((float(np.square(found - expected).mean()), section))
        return [section for _, section in sorted(disturbance, key=lambda pair: pair[0], reverse=True)]

    def _sections(self) -> list[list[str]]:
        """Cut the graph before every n-th layer; what follows a layer, up to the next, belongs to its section."""
        firsts = {group[0] for group in np.array_split(self.layers, min(SECTIONS, len(self.layers)))}
        sections: list[list[str]] = []
        for name, _ in self._nodes:
            if name in firsts or not sections:
                sections.append([])
            sections[-1].append(name)
        return sections

    def _quantize(self, method: str, **nodes: list[str]) -> None:
        calibration_method, options = _METHODS[method]
        with _silence():
            quantize_static(
                self._prepared,
                self._candidate,
                _CalibrationReader(self._calibration, self._preprocessing),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=[*_WORKING_OPERATORS, *_ABSORBED_OPERATORS],
                calibrate_method=calibration_method,
                # The ranges are measured once per method; every further graph takes them from this file.
                calibration_cache_path=self._folder / f"{method}.json",
                # One batch at a time, whatever the method (the option's name says otherwise), for the sake of memory.
                extra_options=options | {"CalibStridedMinMax": 1},
                **nodes,
            )

    def _logits(self, session: onnxruntime.InferenceSession, pixels: npt.NDArray[np.uint8]) -> FloatArray:
        return graph_logits(session, self._preprocessing, pixels)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the quantiser's steps to itself.

    It prints some to the standard output, where the metrics are read, and logs others by the root logger.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)


class _CalibrationReader(CalibrationDataReader):
    """Hands the calibration images to the quantiser; what it counts are batches of `_CALIBRATION_BATCH`."""

    def __init__(self, images: Pictures, preprocessing: Preprocessing) -> None:
        self._pixels, self._preprocessing = images.pixels, preprocessing
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return math.ceil(len(self._pixels) / _CALIBRATION_BATCH)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._batches = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, FloatArray] | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        pixels = self._pixels[batch * _CALIBRATION_BATCH : (batch + 1) * _CALIBRATION_BATCH]
        return {"image": self._preprocessing.normalise(pixels)}


def _milliseconds(sessions: Sequence[onnxruntime.InferenceSession], image: FloatArray) -> list[float]:
    """Return each session's median time for one image; the runs alternate, so that a busy moment hits all alike.

    Processor time and not the clock's: with one thread the two are the same, unless other programs take the processor.
    """
    times: list[list[float]] = [[] for _ in sessions]
    for session in sessions:  # the first run allocates
        session.run(["logits"], {"image": image})
    for _ in range(TIMED_RUNS):
        for session, own in zip(sessions, times, strict=True):
            started = time.thread_time()
            session.run(["logits"], {"image": image})
            own.append(time.thread_time() - started)
    return [1000 * statistics.median(own) for own in times]


def _machine() -> str:
    return f"{cpu_model()}, {platform.machine()}, one thread"
