"""Whether a model ships as int8: compare the two graphs, and keep int8 only where it has earned its place."""

from __future__ import annotations

import contextlib
import logging
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from ...core.predictor import FloatArray, onnx_session, softmax
from ...core.transforms import Preprocessing
from ..data.decoded import Images
from ..loop.evaluation import evaluate_probabilities, fair_order, graph_outputs
from ..whole_files import write_whole
from .changes import Changes, Limits
from .quantize import Quantizer

log = logging.getLogger(__name__)

# int8 must be this much faster to be worth any difference at all; less than a tenth is noise on a shared machine.
MIN_SPEEDUP = 1.1
# Of each graph, one image at a time.
TIMED_RUNS = 21
# Of each split, at most: enough to show a loss of a few tenths of a point.
COMPARED_IMAGES = 2000
# Where all layers in int8 are too inexact, this many stay in float32: the last ones, which are the most sensitive.
KEPT_LAYERS = 2


@dataclass(frozen=True)
class Comparison:
    """An int8 graph beside the fp32 graph it was made from."""

    valid: Changes
    training: Changes  # on images that it was not calibrated with
    agreement: float  # the share of all these images with the same most probable class
    agreement_interval: tuple[float, float]  # 95%
    accuracy_loss_interval: tuple[float, float]  # 95%
    fp32_accuracy: float
    int8_accuracy: float
    fp32_loss: float  # cross-entropy in nats
    int8_loss: float
    fp32_ms: float  # processor time for one image on one thread, without decoding
    int8_ms: float
    calibration_images: int  # of the training split
    kept_fp32: tuple[str, ...] = ()  # the last layers, where they had to stay in fp32
    accuracy_of: str = "validation"  # what accuracy and loss are of

    @classmethod
    def between(
        cls, fp32: FloatArray, int8: FloatArray, targets: npt.NDArray[np.int64], changes: Sequence[Changes], **rest: Any
    ) -> Comparison:
        """Compare logits for images of these classes; `changes` are those on validation and on training images."""
        valid, training = changes
        both = valid + training
        before, after = (evaluate_probabilities(softmax(logits), targets) for logits in (fp32, int8))
        return cls(
            valid, training, 1 - both.answers / both.images, both.agreement_interval, both.loss_interval,
            before.accuracy, after.accuracy, before.loss, after.loss, **rest,
        )  # fmt: skip

    @property
    def speedup(self) -> float:
        """How many times as fast int8 is."""
        return self.fp32_ms / self.int8_ms

    def cost(self) -> str:
        """Return what int8 costs, in words."""
        return (
            f"{self.agreement:.2%} of {self.valid.images + self.training.images:,} images keep their answer (at least "
            f"{self.agreement_interval[0]:.2%} of all images do), and int8 loses at most "
            f"{100 * self.accuracy_loss_interval[1]:.2f} points of accuracy, both with 95% confidence"
        )


@dataclass(frozen=True)
class Decision:
    """Which precision ships, "fp32" or "int8", and why; the comparison is of the graph that came nearest to int8."""

    precision: str
    reason: str
    limits: Limits
    comparison: Comparison | None
    seconds: float
    machine: str = field(default_factory=lambda: f"{cpu_model()}, {platform.machine()}, one thread")


def choose_precision(
    path: Path,
    *,
    calibration: Images,
    valid: Images,
    training: Images,
    preprocessing: Preprocessing,
    limits: Limits,
    threads: int,
    should_stop: Callable[[], bool],
) -> Decision:
    """Replace an fp32 graph by its int8 form where that is faster and as good; otherwise leave it as it is.

    It never raises an error: whatever goes wrong here, there is a trained model that works. The images are cut as the
    server cuts them. `calibration` and `training`, which have none in common, are of the training split. Answers are
    computed on several threads, times taken on one. `should_stop` is asked after every few images.
    """
    started = time.perf_counter()

    def decide(precision: str, reason: str, comparison: Comparison | None = None) -> Decision:
        return Decision(precision, reason, limits, comparison, time.perf_counter() - started)

    splits = [(images, fair_order(len(images))[:COMPARED_IMAGES]) for images in (valid, training)]
    count = sum(len(order) for _, order in splits)
    if count < limits.min_images:
        return decide(
            "fp32",
            f"{count} validation and training images cannot show that int8 stays within the limits; at least "
            f"{limits.min_images} are needed, beside the {len(calibration)} that it is calibrated with",
        )

    def answers(session: onnxruntime.InferenceSession) -> list[FloatArray]:
        found = [
            graph_outputs(
                session, ["logits"], preprocessing, images.pixels, order, threads=threads, should_stop=should_stop
            )[0]
            for images, order in splits
        ]
        if should_stop():
            raise _StoppedError
        return found

    targets = [images.targets[order] for images, order in splits]
    best: Comparison | None = None
    try:
        with tempfile.TemporaryDirectory(prefix="quantize-") as folder:
            quantizer = Quantizer(path, Path(folder), calibration, preprocessing)
            layers = quantizer.layers
            if not layers:
                return decide("fp32", "the network has no layer that int8 makes faster")
            fp32 = onnx_session(path)
            expected = answers(fp32)
            for kept in ([], layers[-KEPT_LAYERS:]):
                graph = quantizer.quantize(kept)
                int8 = onnx_session(graph)
                fp32_ms, int8_ms = _milliseconds([fp32, int8], preprocessing.normalise(valid.pixels[:1]))
                actual = answers(int8)
                if not all(np.isfinite(logits).all() for logits in actual):
                    raise ArithmeticError("the int8 graph's logits are not finite")
                found = Comparison.between(
                    expected[0], actual[0], targets[0], list(map(Changes.between, expected, actual, targets)),
                    fp32_ms=fp32_ms, int8_ms=int8_ms, calibration_images=len(calibration), kept_fp32=tuple(kept),
                )  # fmt: skip
                if found.speedup < MIN_SPEEDUP:
                    but = f" with {len(kept)} layers in fp32" if kept else ""
                    return decide("fp32", f"int8{but} is only {found.speedup:.2f} times as fast as fp32 here", found)
                if limits.admit(found.valid, found.training):
                    write_whole(path, graph.read_bytes())
                    return decide("int8", f"{found.speedup:.2f} times as fast: {found.cost()}", found)
                log.info("int8 (%d layers in fp32): %s", len(kept), found.cost())
                best = max(best or found, found, key=lambda one: one.agreement)
    except _StoppedError:
        return decide("fp32", "the training was asked to stop before int8 was settled", best)
    except Exception as error:  # the quantiser raises whatever the graph makes it stumble over
        log.warning("int8 was given up", exc_info=True)
        return decide("fp32", f"the network cannot be quantised: {type(error).__name__}: {error}"[:500])
    assert best is not None
    also = (
        " (more answers change on validation than on training images)"
        if best.valid.more_often_than(best.training)
        else ""
    )
    return decide(
        "fp32",
        f"it is not shown that int8 is good enough: {best.cost()}{also}; allowed are a loss of "
        f"{100 * limits.max_accuracy_loss:g} points and an agreement of {limits.min_agreement:.2%}; where these lie "
        "within the intervals, more validation images can show it",
        best,
    )


class _StoppedError(Exception):
    """The comparison was asked to stop."""


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
