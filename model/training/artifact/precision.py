"""Whether a model ships as int8: compare the two graphs, and keep int8 only where it has earned its place."""

from __future__ import annotations

import contextlib
import logging
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime

from ...core.predictor import FloatArray, onnx_session, softmax
from ...core.transforms import Preprocessing
from ..data.decoded import Images
from ..loop.evaluation import evaluate_probabilities, graph_logits
from ..whole_files import write_whole
from .quantize import Quantizer

log = logging.getLogger(__name__)

# int8 must be this much faster to be worth any difference at all; less than a tenth is noise on a shared machine.
MIN_SPEEDUP = 1.1
# Of each graph, one image at a time.
TIMED_RUNS = 21
# Where all layers in int8 are too inexact, this many stay in float32: the last ones, which are the most sensitive.
KEPT_LAYERS = 2


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
    calibration_images: int = 0  # of the training split
    kept_fp32: tuple[str, ...] = ()  # the last layers, where they had to stay in fp32

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
            quantizer = Quantizer(path, Path(folder), calibration, preprocessing)
            layers = quantizer.layers
            if not layers:
                return decide("fp32", "the network has no layer that int8 makes faster")
            fp32 = onnx_session(path)
            expected = graph_logits(fp32, preprocessing, valid.pixels)
            attempts: list[Comparison] = []
            for kept in ([], layers[-KEPT_LAYERS:]):
                if attempts and should_stop():
                    return decide("fp32", "the training was asked to stop before int8 was settled", attempts[0])
                graph = quantizer.quantize(kept)
                found = _compare(fp32, expected, onnx_session(graph), valid, preprocessing)
                found = replace(found, calibration_images=len(calibration), kept_fp32=tuple(kept))
                attempts.append(found)
                if found.speedup < MIN_SPEEDUP:
                    but = f" with {len(kept)} layers in fp32" if kept else ""
                    return decide("fp32", f"int8{but} is only {found.speedup:.2f} times as fast as fp32 here", found)
                if limits.admit(found):
                    write_whole(path, graph.read_bytes())
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


def _compare(
    fp32: onnxruntime.InferenceSession,
    expected: FloatArray,
    int8: onnxruntime.InferenceSession,
    valid: Images,
    preprocessing: Preprocessing,
) -> Comparison:
    """Compare the two graphs on the validation images, of which `expected` are the logits of fp32."""
    found = graph_logits(int8, preprocessing, valid.pixels)
    if not np.isfinite(found).all():
        raise ArithmeticError("the int8 graph's logits are not finite")
    before, after = (evaluate_probabilities(softmax(logits), valid.targets) for logits in (expected, found))
    fp32_ms, int8_ms = _milliseconds([fp32, int8], preprocessing.normalise(valid.pixels[:1]))
    return Comparison(
        images=len(valid),
        agreement=float((expected.argmax(1) == found.argmax(1)).mean()),
        fp32_accuracy=before.accuracy,
        int8_accuracy=after.accuracy,
        fp32_loss=before.loss,
        int8_loss=after.loss,
        fp32_ms=fp32_ms,
        int8_ms=int8_ms,
    )


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
