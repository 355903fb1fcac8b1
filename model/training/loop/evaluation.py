"""How good an artifact is, measured as its callers meet it: whole image files through its own predictor."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnxruntime

from ...core.decoding import ImageError
from ...core.predictor import FloatArray, Outputs, Predictor
from ...core.transforms import Preprocessing
from ..data.image_folder import Split
from .calibration import losses
from .metrics import Evaluation

log = logging.getLogger(__name__)

# Images that a thread gives a graph at a time; after them it is asked whether to stop. As fast as 32, measured.
_BATCH = 8

Result = TypeVar("Result")


@dataclass(frozen=True)
class Answers:
    """What a model gave the N images of a split that could be read; its scores, [N], are None where it has none."""

    images: Split
    probabilities: npt.NDArray[np.float64]  # [N, C]
    ood_scores: FloatArray | None = None

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """The images' classes, int64 [N]."""
        return np.asarray(self.images.targets)

    @property
    def share_known(self) -> float | None:
        """The share of the images that the model calls known."""
        return None if self.ood_scores is None else float((self.ood_scores <= 1).mean())

    def evaluation(self) -> Evaluation:
        """Sum them up."""
        return evaluate_probabilities(self.probabilities, self.targets)

    def worst_mistakes(self, labels: Sequence[str], count: int) -> list[dict[str, Any]]:
        """Return the mistakes that the model was surest of, the surest first, as `metrics.json` has them."""
        predicted = self.probabilities.argmax(axis=1)
        wrong = np.flatnonzero(predicted != self.targets)
        order = wrong[np.argsort(-self.probabilities[wrong, predicted[wrong]], kind="stable")][:count]
        return [
            {
                "image": self.images.place(self.images.paths[index]),
                "true": labels[self.targets[index]],
                "predicted": labels[predicted[index]],
                "probability": float(self.probabilities[index, predicted[index]]),
                "true_probability": float(self.probabilities[index, self.targets[index]]),
            }
            for index in order
        ]


def fair_order(count: int) -> list[int]:
    """Return the indices 0 … `count` - 1 so that any first part of them is spread evenly over all of them.

    Splits are sorted by class, so that each class gets its share of every sample. The step is near the golden ratio,
    whose multiples have gaps of at most three lengths wherever they end (the three-distance theorem, Sós 1958).
    """
    step = next(step for step in range(round(count * 0.618034) or 1, count + 2) if math.gcd(step, count) == 1)
    return [index * step % count for index in range(count)]


def evaluate_artifact(
    model_dir: Path, split: Split, *, threads: int = 1, should_stop: Callable[[], bool] = lambda: False
) -> tuple[Answers, dict[str, str]] | None:
    """Classify the images of a split with an artifact's predictor; return also the unreadable ones with the reasons.

    Each of the threads computes as a worker of the server does. None is returned when it was stopped before the end,
    or no image is readable.
    """
    predictor = Predictor.load(model_dir)

    def answer(path: Path) -> Outputs | str:
        try:
            return predictor.run(predictor.prepare(path.read_bytes())[np.newaxis])
        except (ImageError, OSError) as error:
            return str(error)

    results = _in_threads(answer, split.paths, threads, lambda _: should_stop())
    if len(results) < len(split):
        return None
    skipped = {
        split.place(path): result for path, result in zip(split.paths, results, strict=True) if isinstance(result, str)
    }
    for name, reason in skipped.items():
        log.warning("skipped %s: %s", name, reason)
    if len(skipped) == len(split):
        log.warning("no image of the %s split is readable: the model is not measured with it", split.name)
        return None
    split.refuse_unreadable(skipped)
    found = [one for one in results if not isinstance(one, str)]
    scores = [one.ood_scores for one in found if one.ood_scores is not None]
    probabilities = np.concatenate([one.probabilities for one in found])
    return Answers(split.without(skipped), probabilities, np.concatenate(scores) if scores else None), skipped


def evaluate_probabilities(probabilities: npt.NDArray[np.float64], targets: npt.NDArray[np.int64]) -> Evaluation:
    """Sum up the probabilities [N, C] that a model gave images of the classes `targets` [N]."""
    return Evaluation.of(losses(probabilities, targets), targets, probabilities.argmax(axis=1), probabilities.shape[1])


def graph_outputs(
    session: onnxruntime.InferenceSession,
    names: Sequence[str],
    preprocessing: Preprocessing,
    pixels: npt.NDArray[np.uint8],
    order: Sequence[int],
    *,
    threads: int,
    should_stop: Callable[[], bool],
    least: int = 0,
) -> list[FloatArray]:
    """Run a graph on the decoded images of these indices; return these of its outputs, bit for bit the server's.

    When it is asked to stop and has the answers to `least` images, it returns those of the first N of `order`.
    `pixels` are uint8 [M, S, S, 3]; `session` has one thread, the caller's.
    """

    def answer(start: int) -> list[FloatArray]:
        return list(session.run(names, {"image": preprocessing.normalise(pixels[order[start : start + _BATCH]])}))

    def enough(batches: int) -> bool:
        return batches * _BATCH >= least and should_stop()

    batches = _in_threads(answer, range(0, len(order), _BATCH), threads, enough)
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _in_threads(
    work: Callable[[Any], Result], items: Iterable[Any], threads: int, should_stop: Callable[[int], bool]
) -> list[Result]:
    """Do the work for all items; or for the first ones, when asked to stop after some results, whose number it gets."""
    results: list[Result] = []
    with ThreadPoolExecutor(threads) as pool:
        for result in pool.map(work, items):
            results.append(result)
            if should_stop(len(results)):
                pool.shutdown(cancel_futures=True)
                break
    return results
