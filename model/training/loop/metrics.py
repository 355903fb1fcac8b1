"""The numbers that a training reports: the lines it prints, the expressions that read them, and sums over predictions.

SageMaker applies the regular expressions of the training job to every line of its log. So the function that writes a
line and the expressions that read it live here. The command line imports this module, so it leaves numpy for later.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from .stopping import hot_epochs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

# By SageMaker's name, the name in a line and the format of the value.
_METRICS = {
    "train:loss": ("train_loss", ".4f"),
    "valid:loss": ("valid_loss", ".4f"),
    "valid:accuracy": ("valid_accuracy", ".4f"),
    "valid:macro_f1": ("valid_macro_f1", ".4f"),
    "train:images_per_second": ("images_per_second", ".1f"),
    "test:loss": ("test_loss", ".4f"),
    "test:accuracy": ("test_accuracy", ".4f"),
    "trial:loss": ("trial_loss", ".4f"),
    "trial:accuracy": ("trial_accuracy", ".4f"),
    "trial:macro_f1": ("trial_macro_f1", ".4f"),
}

METRIC_DEFINITIONS: list[dict[str, str]] = [
    {"Name": name, "Regex": rf"{text}=([0-9]+(?:\.[0-9]+)?)"} for name, (text, _) in _METRICS.items()
]
"""What `CreateTrainingJob` takes as `AlgorithmSpecification.MetricDefinitions`."""


def annealed_metrics(metric: str) -> list[dict[str, str]]:
    """Return `METRIC_DEFINITIONS` with one that is read of the epochs after the hot ones and of the best one only."""
    return [
        one | {"Regex": rf"(?:annealing=yes|best_epoch=).* {one['Regex']}"} if one["Name"] == metric else one
        for one in METRIC_DEFINITIONS
    ]


def objective(select: str) -> dict[str, str]:
    """Return what a search goes by that selects by one of `config.SELECTIONS`, in the words of SageMaker."""
    return {"Type": "Minimize" if select == "loss" else "Maximize", "MetricName": f"valid:{select.replace('-', '_')}"}


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
    """What one epoch of training gave, counted from 1; the losses are means over the images, in nats.

    `valid_macro_f1` is the mean F1 of the classes that have validation images.
    """

    epoch: int
    train_loss: float
    valid_loss: float
    valid_accuracy: float
    valid_macro_f1: float
    images_per_second: float

    def selected(self, select: str) -> float:
        """Return the metric of the validation split that `select` names, one of `config.SELECTIONS`."""
        return float(getattr(self, f"valid_{select.replace('-', '_')}"))


def print_epoch(epoch: EpochMetrics, *, epochs: int) -> None:
    """Print an epoch's line, with `annealing=yes` after the `hot_epochs` of the training's `epochs`."""
    values = asdict(epoch)
    annealing = {"annealing": "yes"} if epoch.epoch > hot_epochs(epochs) else {}
    print_metrics(epoch=values.pop("epoch"), **annealing, **values)


@dataclass(frozen=True)
class Trial:
    """One training of a search inside a training job, in the words of SageMaker's tuning jobs.

    It was stopped where it was worse than most at the same epoch, and failed where it diverged. The objective is the
    best epoch's value of the metric that `--select` names; the others are of the same epoch.
    """

    COMPLETED: ClassVar[str] = "Completed"
    STOPPED: ClassVar[str] = "Stopped"
    FAILED: ClassVar[str] = "Failed"

    trial: int
    status: str
    seconds: float
    hyperparameters: dict[str, float | int]
    objective: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    macro_f1: float | None = None

    def values(self) -> dict[str, float | str]:
        """Return what its log line says; the names are none of an epoch's: a job's curve is that of one training."""
        values: dict[str, float | str] = {"trial": self.trial, "status": self.status, **self.hyperparameters}
        measured = {"trial_loss": self.loss, "trial_accuracy": self.accuracy, "trial_macro_f1": self.macro_f1}
        return values | {name: value for name, value in measured.items() if value is not None}


@dataclass(frozen=True)
class Evaluation:
    """How a classifier did on one split: its mean cross-entropy in nats, its accuracy and its confusion matrix.

    `cells` are the cells of the matrix that are not 0, sorted, int64 [K, 3]: true class, predicted class, images. There
    are at most as many as images, where the matrix has the square of the classes.
    """

    loss: float
    accuracy: float
    classes: int
    cells: NDArray[np.int64] = field(compare=False, repr=False)

    @classmethod
    def of(cls, losses: ArrayLike, truth: ArrayLike, predicted: ArrayLike, classes: int) -> Evaluation:
        """Sum up one loss, one true class and one predicted class per image, of which there is at least one."""
        import numpy as np

        true, guessed = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
        cells, images = np.unique(true * classes + guessed, return_counts=True)
        cells = np.column_stack([*np.divmod(cells, classes), images])
        return cls(float(np.asarray(losses, np.float64).mean()), float((true == guessed).mean()), classes, cells)

    def rank(self, select: str) -> tuple[float, float]:
        """Return what is lower for the better one by the metric `select`; of equally good ones the loss decides."""
        best = self.loss if select == "loss" else -float(getattr(self, select.replace("-", "_")))
        return best, self.loss

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have images, each counting alike."""
        images, guesses, right = self._by_class()
        there = images > 0
        return float((2 * right[there] / (images + guesses)[there]).mean())

    def recorded(self) -> dict[str, Any]:
        """Return all of it as `metrics.json` has it.

        Precision, recall and F1 are None where there is nothing to divide by.
        """
        per_class = [
            {
                "images": images,
                "precision": _share(right, guessed),
                "recall": _share(right, images),
                "f1": _share(2 * right, images + guessed),
            }
            for images, guessed, right in zip(*(counts.tolist() for counts in self._by_class()), strict=True)
        ]
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "accuracy_interval": self.accuracy_interval(),
            "macro_f1": self.macro_f1,
            "confusion_cells": self.cells.tolist(),
            "per_class": per_class,
        }

    def accuracy_interval(self) -> tuple[float, float]:
        """Return the 95% confidence interval of the accuracy, by Wilson's score method (1927)."""
        z = 1.959964  # the normal distribution's 97.5% quantile
        images = int(self.cells[:, 2].sum())
        centre = (self.accuracy + z**2 / (2 * images)) / (1 + z**2 / images)
        spread = math.sqrt(self.accuracy * (1 - self.accuracy) / images + (z / (2 * images)) ** 2)
        half = z * spread / (1 + z**2 / images)
        return max(0.0, centre - half), min(1.0, centre + half)

    def _by_class(self) -> list[NDArray[np.int64]]:
        """Return for every class how many images are of it, how many were taken for it, and how many both."""
        import numpy as np

        true, predicted, counts = self.cells.T
        summed = (true, counts), (predicted, counts), (true, counts * (true == predicted))
        return [np.bincount(index, weights, self.classes).astype(np.int64) for index, weights in summed]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
