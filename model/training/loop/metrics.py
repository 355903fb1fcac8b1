"""The numbers that a training reports: the lines it prints, the expressions that read them, and sums over predictions.

SageMaker applies the regular expressions of the training job to every line of its log. So the function that writes a
line and the expressions that read it live here. Standard library only, because the command line imports this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

# By SageMaker's name, the name in a line and the format of the value.
_METRICS = {
    "train:loss": ("train_loss", ".4f"),
    "valid:loss": ("valid_loss", ".4f"),
    "valid:accuracy": ("valid_accuracy", ".4f"),
    "train:images_per_second": ("images_per_second", ".1f"),
    "test:loss": ("test_loss", ".4f"),
    "test:accuracy": ("test_accuracy", ".4f"),
    "trial:loss": ("trial_loss", ".4f"),
    "trial:accuracy": ("trial_accuracy", ".4f"),
}

METRIC_DEFINITIONS: list[dict[str, str]] = [
    {"Name": name, "Regex": rf"{text}=([0-9]+(?:\.[0-9]+)?)"} for name, (text, _) in _METRICS.items()
]
"""What `CreateTrainingJob` takes as `AlgorithmSpecification.MetricDefinitions`."""


def metrics_line(**values: float | str) -> str:
    """Return the log line of some values, whose metrics `METRIC_DEFINITIONS` reads."""
    formats = dict(_METRICS.values())
    return " ".join(
        f"{name}={value if isinstance(value, int | str) else format(value, formats.get(name, '.6g'))}"
        for name, value in values.items()
    )


def print_metrics(**values: float | str) -> None:
    """Print a line at once: the log is how SageMaker reads metrics."""
    print(metrics_line(**values), flush=True)  # noqa: T201


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch of training gave, counted from 1; the losses are means over the images, in nats."""

    epoch: int
    train_loss: float
    valid_loss: float
    valid_accuracy: float
    images_per_second: float


def print_epoch(epoch: EpochMetrics) -> None:
    """Print the line of an epoch."""
    print_metrics(**asdict(epoch))


@dataclass(frozen=True)
class Trial:
    """One training of a search inside a training job, in the words of SageMaker's tuning jobs.

    It was stopped where it was worse than most at the same epoch, and failed where it diverged. The objective is the
    lowest validation loss, and the accuracy that of the same epoch.
    """

    COMPLETED: ClassVar[str] = "Completed"
    STOPPED: ClassVar[str] = "Stopped"
    FAILED: ClassVar[str] = "Failed"

    trial: int
    status: str
    objective: float | None
    accuracy: float | None
    seconds: float
    hyperparameters: dict[str, float | int]

    def values(self) -> dict[str, float | str]:
        """Return what its log line says; the names are none of an epoch's: a job's curve is that of one training."""
        values: dict[str, float | str] = {"trial": self.trial, "status": self.status, **self.hyperparameters}
        if self.objective is not None and self.accuracy is not None:
            values |= {"trial_loss": self.objective, "trial_accuracy": self.accuracy}
        return values


@dataclass(frozen=True)
class Evaluation:
    """How a classifier did on one split: its mean cross-entropy in nats, its accuracy and its confusion matrix.

    A row is a true class, a column the predicted one, both in the order of the labels.
    """

    loss: float
    accuracy: float
    confusion_matrix: list[list[int]]

    @classmethod
    def of(cls, losses: Sequence[float], truth: Sequence[int], predicted: Sequence[int], classes: int) -> Evaluation:
        """Sum up one loss, one true class and one predicted class per image, of which there is at least one."""
        matrix = [[0] * classes for _ in range(classes)]
        for true, guess in zip(truth, predicted, strict=True):
            matrix[true][guess] += 1
        right = sum(matrix[index][index] for index in range(classes))
        return cls(sum(losses) / len(losses), right / len(truth), matrix)

    def recorded(self) -> dict[str, Any]:
        """Return all of it as `metrics.json` has it.

        Precision, recall and F1 are None where there is nothing to divide by; in the mean F1 all others count alike.
        """
        guesses = [sum(column) for column in zip(*self.confusion_matrix, strict=True)]
        per_class: list[dict[str, Any]] = [
            {
                "images": sum(row),
                "precision": _share(row[index], guessed),
                "recall": _share(row[index], sum(row)),
                "f1": _share(2 * row[index], sum(row) + guessed),
            }
            for index, (row, guessed) in enumerate(zip(self.confusion_matrix, guesses, strict=True))
        ]
        scores = [one["f1"] for one in per_class if one["images"]]
        return asdict(self) | {
            "accuracy_interval": self.accuracy_interval(),
            "macro_f1": sum(scores) / len(scores),
            "per_class": per_class,
        }

    def accuracy_interval(self) -> tuple[float, float]:
        """Return the 95% confidence interval of the accuracy, by Wilson's score method (1927)."""
        z = 1.959964  # the normal distribution's 97.5% quantile
        images = sum(map(sum, self.confusion_matrix))
        centre = (self.accuracy + z**2 / (2 * images)) / (1 + z**2 / images)
        spread = math.sqrt(self.accuracy * (1 - self.accuracy) / images + (z / (2 * images)) ** 2)
        half = z * spread / (1 + z**2 / images)
        return max(0.0, centre - half), min(1.0, centre + half)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
