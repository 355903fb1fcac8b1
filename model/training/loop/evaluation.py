"""How good an artifact is, measured as its callers meet it: whole image files through its own predictor."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from ...core.decoding import ImageError
from ...core.predictor import FloatArray, Predictor
from ...core.transforms import Preprocessing
from ..data.image_folder import Split
from .calibration import losses
from .metrics import Evaluation

log = logging.getLogger(__name__)

_BATCH = 32


@dataclass(frozen=True)
class Answers:
    """The probabilities, float64 [N, C], that a model gave the N images of a split that could be read."""

    images: Split
    probabilities: npt.NDArray[np.float64]

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """The images' classes, int64 [N]."""
        return np.asarray(self.images.targets)

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


def evaluate_artifact(model_dir: Path, split: Split) -> tuple[Answers, dict[str, str]]:
    """Classify the images of a split with an artifact's predictor; return also the unreadable ones with the reasons."""
    predictor = Predictor.load(model_dir)
    scores: list[list[float]] = []
    skipped: dict[str, str] = {}
    for path in split.paths:
        try:
            scores.append(predictor.predict(path.read_bytes(), top_k=1).scores)
        except (ImageError, OSError) as error:
            skipped[split.place(path)] = str(error)
            log.warning("skipped %s: %s", split.place(path), error)
    split.refuse_unreadable(skipped)
    return Answers(split.without(skipped), np.asarray(scores)), skipped


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
