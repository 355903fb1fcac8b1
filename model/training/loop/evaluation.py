"""How good an artifact is, measured as its callers meet it: whole image files through its own predictor."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from ...core.decoding import ImageError
from ...core.predictor import FloatArray, Predictor
from ...core.transforms import Preprocessing
from ..data.dataset import DataSet
from ..data.image_folder import DataSetError
from .calibration import losses
from .metrics import Evaluation

log = logging.getLogger(__name__)

_BATCH = 32


@dataclass(frozen=True)
class Answers:
    """What a model said about the N images of one split that could be read.

    Their classes are int64 [N], the probabilities float64 [N, C], as the callers get them.
    """

    paths: tuple[Path, ...]
    targets: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]

    def evaluation(self) -> Evaluation:
        """Sum them up."""
        return evaluate_probabilities(self.probabilities, self.targets)


def evaluate_artifact(model_dir: Path, data_set: DataSet, split: str) -> tuple[Answers, dict[str, str]]:
    """Classify every image of a split with an artifact's predictor.

    Returns the answers and the unreadable files, each with the reason; they are not counted. Raises DataSetError when
    the data set's classes are not the artifact's, or no image of the split is readable.
    """
    predictor = Predictor.load(model_dir)
    if tuple(predictor.card.labels) != data_set.labels:
        raise DataSetError(
            f"the model in {model_dir} knows other classes than {data_set.root}: {', '.join(predictor.card.labels)}"
        )
    found: list[tuple[Path, int, list[float]]] = []
    skipped: dict[str, str] = {}
    for path, target in data_set.splits[split].images():
        try:
            found.append((path, target, predictor.predict(path.read_bytes(), top_k=1).scores))
        except (ImageError, OSError) as error:
            name = str(path.relative_to(data_set.root))
            log.warning("skipped %s: %s", name, error)
            skipped[name] = str(error)
    if not found:
        raise DataSetError(f"no picture of the {split} split is readable; the first: {next(iter(skipped.values()))}")
    paths, targets, scores = zip(*found, strict=True)
    return Answers(paths, np.asarray(targets), np.asarray(scores)), skipped


def evaluate_probabilities(probabilities: npt.NDArray[np.float64], targets: npt.NDArray[np.int64]) -> Evaluation:
    """Sum up the probabilities [N, C] that a model gave images of the classes `targets` [N]."""
    predicted = probabilities.argmax(axis=1).tolist()
    return Evaluation.of(losses(probabilities, targets).tolist(), targets.tolist(), predicted, probabilities.shape[1])


def graph_logits(
    session: onnxruntime.InferenceSession, preprocessing: Preprocessing, pixels: npt.NDArray[np.uint8]
) -> FloatArray:
    """Run a graph on decoded images, uint8 [N, S, S, 3]; returns logits, float32 [N, C]."""
    return np.concatenate(
        [
            session.run(["logits"], {"image": preprocessing.normalise(pixels[start : start + _BATCH])})[0]
            for start in range(0, len(pixels), _BATCH)
        ]
    )


def worst_mistakes(answers: Answers, data_set: DataSet, count: int) -> list[dict[str, Any]]:
    """Return the mistakes that the model was surest of, the surest first, as `metrics.json` has them."""
    predicted = answers.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != answers.targets)
    order = wrong[np.argsort(-answers.probabilities[wrong, predicted[wrong]], kind="stable")][:count]
    return [
        {
            "picture": answers.paths[index].relative_to(data_set.root).as_posix(),
            "true": data_set.labels[answers.targets[index]],
            "predicted": data_set.labels[predicted[index]],
            "probability": float(answers.probabilities[index, predicted[index]]),
            "true_probability": float(answers.probabilities[index, answers.targets[index]]),
        }
        for index in order
    ]
