"""The numbers that a training reports: the lines it prints, the expressions that read them, and sums over predictions.

SageMaker has no other channel for metrics than the log: it applies the regular expressions of the training job to
every line. So the function that writes a line and the expression that reads it live here, side by side. The command
line imports this module to define the training job, which is why it needs nothing but the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

_LINES_SAY = {
    "train:loss": "train_loss",
    "valid:loss": "valid_loss",
    "valid:accuracy": "valid_accuracy",
    "train:images_per_second": "images_per_second",
    "test:loss": "test_loss",
    "test:accuracy": "test_accuracy",
    "trial:loss": "trial_loss",
    "trial:accuracy": "trial_accuracy",
}

METRIC_DEFINITIONS: list[dict[str, str]] = [
    {"Name": name, "Regex": rf"{text}=([0-9]+(?:\.[0-9]+)?)"} for name, text in _LINES_SAY.items()
]
"""What `CreateTrainingJob` takes as `AlgorithmSpecification.MetricDefinitions`."""


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch of training gave.

    Attributes
    ----------
    epoch : counted from 1
    train_loss, valid_loss : cross-entropy in nats, the mean over the images (not over the batches)
    valid_accuracy : share of the validation images whose most probable class is the right one, 0 to 1
    images_per_second : training images seen per second, validation not counted
    """

    epoch: int
    train_loss: float
    valid_loss: float
    valid_accuracy: float
    images_per_second: float

    def line(self) -> str:
        """Return the log line that `METRIC_DEFINITIONS` reads."""
        return (
            f"epoch={self.epoch} train_loss={self.train_loss:.4f} valid_loss={self.valid_loss:.4f} "
            f"valid_accuracy={self.valid_accuracy:.4f} images_per_second={self.images_per_second:.1f}"
        )


@dataclass(frozen=True)
class Trial:
    """One training of a search inside a training job, in the words of SageMaker's tuning jobs.

    It was `COMPLETED`, `STOPPED` (worse than most at the same epoch) or has `FAILED` (it diverged, and has no result).
    The objective is the lowest validation loss, and the accuracy that of the same epoch.
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

    def line(self) -> str:
        """Return the log line that `METRIC_DEFINITIONS` reads.

        The names are others than those of an epoch: the last validation loss that a job reports is that of its model,
        and its curve that of one training.
        """
        values = " ".join(f"{name}={value:.6g}" for name, value in self.hyperparameters.items())
        line = f"trial={self.trial} status={self.status} {values}"
        if self.objective is not None:
            line += f" trial_loss={self.objective:.4f} trial_accuracy={self.accuracy:.4f}"
        return line


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
        right = sum(true == guess for true, guess in zip(truth, predicted, strict=True))
        return cls(sum(losses) / len(losses), right / len(truth), matrix)

    def recorded(self) -> dict[str, Any]:
        """Return all of it as `metrics.json` has it.

        Of every class: precision, the share of right answers of those for this class; recall, the share of its images
        that were recognised; F1, the harmonic mean of both. None where there is nothing to divide by. In the mean F1
        every class that has images counts alike, however rare it is.
        """
        guesses = [sum(column) for column in zip(*self.confusion_matrix, strict=True)]
        per_class: list[dict[str, Any]] = [
            {
                "pictures": sum(row),
                "precision": _share(row[index], guessed),
                "recall": _share(row[index], sum(row)),
                "f1": _share(2 * row[index], sum(row) + guessed),
            }
            for index, (row, guessed) in enumerate(zip(self.confusion_matrix, guesses, strict=True))
        ]
        scores = [one["f1"] for one in per_class if one["pictures"]]
        return asdict(self) | {
            "accuracy_interval": self.accuracy_interval(),
            "macro_f1": sum(scores) / len(scores),
            "per_class": per_class,
        }

    def accuracy_interval(self) -> tuple[float, float]:
        """Return the 95% confidence interval of the accuracy, by Wilson's score method (1927).

        It says how far chance alone may have moved the figure: on few images, far.
        """
        z = 1.959964  # the normal distribution's 97.5% quantile
        images = sum(map(sum, self.confusion_matrix))
        centre = (self.accuracy + z**2 / (2 * images)) / (1 + z**2 / images)
        spread = math.sqrt(self.accuracy * (1 - self.accuracy) / images + (z / (2 * images)) ** 2)
        half = z * spread / (1 + z**2 / images)
        return max(0.0, centre - half), min(1.0, centre + half)

    def test_line(self) -> str:
        """Return the log line of the final measurement, which `METRIC_DEFINITIONS` reads."""
        return f"test_loss={self.loss:.4f} test_accuracy={self.accuracy:.4f}"


def best_line(epoch: int, evaluation: Evaluation) -> str:
    """Return the log line of the epoch whose weights are kept.

    It repeats the epoch's validation, because a tuning job compares the last value that a training job gave.
    """
    return f"best_epoch={epoch} valid_loss={evaluation.loss:.4f} valid_accuracy={evaluation.accuracy:.4f}"


def print_metrics(line: str) -> None:
    """Print a line at once: the log is how SageMaker reads metrics."""
    print(line, flush=True)  # noqa: T201


def print_epoch(epoch: EpochMetrics) -> None:
    """Print the line of an epoch."""
    print_metrics(epoch.line())


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
