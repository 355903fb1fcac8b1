"""The outcome of a training that never ran: real figures of invented answers, for as many classes as a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.training.data.dataset import DataSet, Split
from model.training.loop.calibration import reliability
from model.training.loop.evaluation import Answers, worst_mistakes
from model.training.loop.metrics import EpochMetrics


def make_answers(root: Path, labels: Sequence[str], *, per_class: int = 6, accuracy: float = 0.8) -> Answers:
    """Answers that are right about so often, to pictures that do not exist."""
    random = np.random.default_rng(0)
    targets = np.repeat(np.arange(len(labels)), per_class)
    logits = random.normal(size=(len(targets), len(labels)))
    likely = np.where(random.random(len(targets)) < accuracy, targets, random.integers(0, len(labels), len(targets)))
    logits[np.arange(len(targets)), likely] += random.uniform(3, 9, len(targets))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    paths = tuple(root / "test" / labels[target] / f"{index:04d}.jpg" for index, target in enumerate(targets.tolist()))
    return Answers(paths, targets, probabilities)


def make_metrics(answers: Answers, labels: Sequence[str], root: Path, **changes: Any) -> dict[str, Any]:
    """What `metrics.json` would hold; `changes` replace whole entries."""
    both = dict.fromkeys(("before", "after"), reliability(answers.probabilities, answers.targets))
    split = Split("test", answers.paths, tuple(answers.targets.tolist()))
    mistakes = worst_mistakes(answers, DataSet(root, tuple(labels), {"test": split}), 18)
    return {
        "model": {
            "name": "shapes", "version": "sha256:" + "0" * 64, "architecture": "resnet9",
            "display_labels": list(labels), "input_size": 64, "precision": "fp32", "training_job": "job-1",
            "code_revision": "",
        },
        "labels": list(labels),
        "epochs": [
            vars(EpochMetrics(epoch, 3 / epoch, 2.5 / epoch, 1 - 0.8 / epoch, 800.0))
            for epoch in range(1, 11)
        ],
        "best_epoch": 9,
        "interrupted": False,
        "images_per_second": 800.0,
        "workers": 1,
        "valid": answers.evaluation().recorded(),
        "test": answers.evaluation().recorded(),
        "calibration": {"temperature": 0.75, "valid": both, "test": both},
        "mistakes": mistakes,
        "data_set": {
            "fingerprint": "sha256:" + "1" * 64,
            "counts": {"train": 60, "valid": 12, "test": len(answers.targets)},
            "absent_classes": {},
            "skipped": {},
            "also_in_training": [],
        },
        "quantization": None,
        "arguments": {"precision": "fp32", "lr": 0.01, "batch_size": 64},
        "environment": {
            "instance_type": "ml.m5.xlarge", "cpu": "a processor", "vcpus": 4, "memory_gb": 16.0, "gpus": [],
            "system": "Linux", "versions": {"python": "3.11"},
        },
        "finished": "2026-11-22T17:00:00+00:00",
        "seconds": 75.0,
        **changes,
    }  # fmt: skip
