"""The outcome of a training that never ran: real figures of invented answers, for as many classes as a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from model.core.predictor import softmax
from model.training.data.image_folder import Split
from model.training.loop.calibration import reliability
from model.training.loop.evaluation import Answers
from model.training.loop.metrics import EpochMetrics


def make_metrics(root: Path, labels: Sequence[str], *, accuracy: float = 0.8, **changes: Any) -> dict[str, Any]:
    """What `metrics.json` would hold of answers about images that do not exist; `changes` replace whole entries."""
    random = np.random.default_rng(0)
    targets = np.repeat(np.arange(len(labels)), 6)
    logits = random.normal(size=(len(targets), len(labels)))
    likely = np.where(random.random(len(targets)) < accuracy, targets, random.integers(0, len(labels), len(targets)))
    logits[np.arange(len(targets)), likely] += random.uniform(3, 9, len(targets))
    paths = tuple(root / "test" / labels[target] / f"{index:04d}.jpg" for index, target in enumerate(targets))
    answers = Answers(Split(root, "test", paths, tuple(targets.tolist())), softmax(logits))
    both = dict.fromkeys(("before", "after"), reliability(answers.probabilities, targets))
    found: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("report.yaml").read_text(encoding="utf-8"))
    found["model"]["display_labels"] = list(labels)
    found["data_set"]["counts"]["test"] = len(targets)
    epochs = [
        EpochMetrics(epoch, 3 / epoch, 2.5 / epoch, 1 - 0.8 / epoch, 1 - 0.9 / epoch, 800.0) for epoch in range(1, 11)
    ]
    return {
        **found,
        "labels": list(labels),
        "epochs": [vars(epoch) for epoch in epochs],
        "valid": answers.evaluation().recorded(),
        "test": answers.evaluation().recorded(),
        "calibration": {"temperature": 0.75, "images": len(targets), "valid": both, "test": both},
        "mistakes": answers.worst_mistakes(labels, 18),
        **changes,
    }
