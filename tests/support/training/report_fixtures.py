"""The outcome of a training that never ran: real figures of invented answers, for as many classes as a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
    return {
        "model": {
            "name": "shapes", "version": "sha256:" + "0" * 64, "architecture": "resnet9",
            "display_labels": list(labels), "input_size": 64, "precision": "fp32", "training_job": "job-1",
            "code_revision": "",
        },
        "labels": list(labels),
        "epochs": [
            vars(EpochMetrics(epoch, 3 / epoch, 2.5 / epoch, 1 - 0.8 / epoch, 1 - 0.9 / epoch, 800.0))
            for epoch in range(1, 11)
        ],
        "best_epoch": 9,
        "interrupted": False,
        "diverged_epoch": None,
        "images_per_second": 800.0,
        "workers": 1,
        "valid": answers.evaluation().recorded(),
        "test": answers.evaluation().recorded(),
        "calibration": {"temperature": 0.75, "images": len(targets), "valid": both, "test": both},
        "ood": {"threshold_share": 0.95, "valid_known": 0.95, "test_known": 0.925},
        "mistakes": answers.worst_mistakes(labels, 18),
        "data_set": {
            "fingerprint": "sha256:" + "1" * 64,
            "counts": {"train": 60, "valid": 12, "test": len(targets)},
            "absent_classes": {},
            "skipped": {},
            "left_out": {},
            "held_out": [],
            **{kind: [] for kind in ("also_in_training", "also_in_valid", "in_two_classes")},
        },
        "quantization": None,
        "arguments": {"precision": "fp32", "select": "loss", "lr": 0.01, "batch_size": 64},
        "environment": {
            "instance_type": "ml.m5.xlarge", "cpu": "a processor", "vcpus": 4, "memory_gb": 16.0, "gpus": [],
            "system": "Linux", "versions": {"python": "3.11"},
        },
        "finished": "2026-11-22T17:00:00+00:00",
        "seconds": 75.0,
        **changes,
    }  # fmt: skip
