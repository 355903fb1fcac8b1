from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_fixtures import COLOURS, LABELS, make_artifact

from model.training.data.dataset import discover
from model.training.data.image_folder import Split
from model.training.data.listing import DataSetError
from model.training.loop.evaluation import Answers, evaluate_artifact
from model.training.loop.metrics import METRIC_DEFINITIONS, EpochMetrics, Evaluation, Trial, metrics_line


def read(line: str) -> dict[str, float]:
    """Read a line as SageMaker does: every expression over every line, the first group is the value."""
    found = {definition["Name"]: re.search(definition["Regex"], line) for definition in METRIC_DEFINITIONS}
    return {name: float(match.group(1)) for name, match in found.items() if match}


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.87654321, 123456.789, 1e6])
def test_lines_are_read_back_and_a_trials_is_no_epochs(value):
    near = pytest.approx(value, abs=5.1e-5)
    assert read(metrics_line(**vars(EpochMetrics(7, value, value, value, value)))) == {
        "train:loss": near, "valid:loss": near, "valid:accuracy": near,
        "train:images_per_second": pytest.approx(value, abs=5.1e-2),
    }  # fmt: skip
    assert read(metrics_line(test_loss=value, test_accuracy=value)) == {"test:loss": near, "test:accuracy": near}
    trial = Trial(3, Trial.COMPLETED, value, value, 1.0, {"lr": 0.0136801, "batch-size": 32})
    line = metrics_line(**trial.values())
    assert line.startswith("trial=3 status=Completed lr=0.0136801 batch-size=32 trial_loss=")
    assert read(line) == {"trial:loss": near, "trial:accuracy": near}
    assert read(f"INFO decoded 720 + 180 images in {value} s; loss={value}") == {}


def test_precision_recall_and_f1_of_every_class_and_their_mean():
    recorded = Evaluation(1.0, 0.5, [[2, 1, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).recorded()
    assert [tuple(one.values()) for one in recorded["per_class"]] == [
        (3, pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3)),
        (1, pytest.approx(1 / 3), 1.0, 0.5),
        (2, None, 0.0, 0.0),  # never guessed
        (0, None, None, None),  # neither there nor guessed
    ]
    assert recorded["macro_f1"] == pytest.approx((2 / 3 + 0.5 + 0) / 3)


def test_the_interval_of_the_accuracy_is_wilsons():
    assert Evaluation(1.0, 0.9, [[90, 10], [0, 0]]).accuracy_interval() == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert Evaluation(0.0, 1.0, [[10, 0], [0, 0]]).accuracy_interval() == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_a_split_of_nothing_but_unreadable_images_is_an_error(tmp_path):
    make_artifact(tmp_path / "artifact")
    for split in ("train", "valid", "test"):
        for label, colour in zip(LABELS, COLOURS, strict=True):
            (tmp_path / split / label).mkdir(parents=True)
            Image.new("RGB", (40, 30), colour).save(tmp_path / split / label / "plain.png")
    for path in (tmp_path / "test").rglob("*.png"):
        path.write_text("<html>")
    with pytest.raises(DataSetError, match="no image of the test split is readable"):
        evaluate_artifact(tmp_path / "artifact", discover(tmp_path).splits["test"])


def test_the_worst_mistakes_are_the_surest_ones():
    root, labels = Path("data"), ("a", "b", "c")
    images = Split(root, "test", tuple(root / "test" / f"{number}.png" for number in range(3)), (0, 1, 2))
    answers = Answers(images, np.array([[0.2, 0.7, 0.1], [0.9, 0.05, 0.05], [0.0, 0.1, 0.9]]))
    assert answers.worst_mistakes(labels, 10) == [
        {"image": "test/1.png", "true": "b", "predicted": "a", "probability": 0.9, "true_probability": 0.05},
        {"image": "test/0.png", "true": "a", "predicted": "b", "probability": 0.7, "true_probability": 0.2},
    ]
    assert len(answers.worst_mistakes(labels, 1)) == 1
