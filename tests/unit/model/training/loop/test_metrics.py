from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from serving_fixtures import COLOURS, LABELS, make_artifact

from model.training.data.dataset import DataSet, Split, discover
from model.training.data.image_folder import DataSetError
from model.training.loop.evaluation import Answers, evaluate_artifact, worst_mistakes
from model.training.loop.metrics import METRIC_DEFINITIONS, EpochMetrics, Evaluation, Trial

losses = st.floats(0, 1e6)
shares = st.floats(0, 1)


def read(line: str) -> dict[str, float]:
    """Read a line as SageMaker does: every expression over every line, the first group is the value."""
    found = {definition["Name"]: re.search(definition["Regex"], line) for definition in METRIC_DEFINITIONS}
    return {name: float(match.group(1)) for name, match in found.items() if match}


@given(st.integers(1, 9999), losses, losses, shares, st.floats(0.1, 1e6))
def test_epoch_lines_are_read_back(epoch, train_loss, valid_loss, valid_accuracy, images_per_second):
    metrics = read(EpochMetrics(epoch, train_loss, valid_loss, valid_accuracy, images_per_second).line())
    assert metrics == {
        "train:loss": pytest.approx(train_loss, abs=5.1e-5),
        "valid:loss": pytest.approx(valid_loss, abs=5.1e-5),
        "valid:accuracy": pytest.approx(valid_accuracy, abs=5.1e-5),
        "train:images_per_second": pytest.approx(images_per_second, abs=5.1e-2),
    }
    assert read(Evaluation(valid_loss, valid_accuracy, [[0]]).test_line()) == {
        "test:loss": pytest.approx(valid_loss, abs=5.1e-5),
        "test:accuracy": pytest.approx(valid_accuracy, abs=5.1e-5),
    }


def test_a_trials_line_is_no_epochs_and_other_log_lines_are_no_metrics():
    line = Trial(3, Trial.COMPLETED, 0.4, 0.9, 1.0, {"lr": 0.01}).line()
    assert read(line) == {"trial:loss": 0.4, "trial:accuracy": 0.9}
    assert read("INFO decoded 720 + 180 pictures in 4.2 s") == {}
    assert read("--lr=0.002 is the peak learning rate; loss=3") == {}


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


def test_unreadable_images_are_named_and_not_counted_and_nothing_but_those_is_an_error(tmp_path):
    artifact, root = tmp_path / "artifact", tmp_path / "colours"
    make_artifact(artifact)
    for split in ("train", "valid", "test"):
        for label, colour in zip(LABELS, COLOURS, strict=True):
            (root / split / label).mkdir(parents=True)
            Image.new("RGB", (40, 30), colour).save(root / split / label / "plain.png")
    Image.new("RGB", (40, 30), COLOURS[1]).save(root / "test" / LABELS[0] / "green.png")
    (root / "test" / LABELS[0] / "page.jpg").write_text("<html>")
    answers, skipped = evaluate_artifact(artifact, discover(root), "test")
    assert answers.evaluation().accuracy == 3 / 4
    assert skipped.keys() == {f"test/{LABELS[0]}/page.jpg"}
    for path in (root / "test").rglob("*.png"):
        path.write_text("<html>")
    with pytest.raises(DataSetError, match="no picture of the test split is readable"):
        evaluate_artifact(artifact, discover(root), "test")


def test_the_worst_mistakes_are_the_surest_ones():
    root, targets = Path("data"), np.array([0, 1, 2])
    paths = tuple(root / "test" / f"{number}.png" for number in range(3))
    data_set = DataSet(root, ("a", "b", "c"), {"test": Split("test", paths, (0, 1, 2))})
    probabilities = np.array([[0.2, 0.7, 0.1], [0.9, 0.05, 0.05], [0.0, 0.1, 0.9]])
    assert worst_mistakes(Answers(paths, targets, probabilities), data_set, 10) == [
        {"picture": "test/1.png", "true": "b", "predicted": "a", "probability": 0.9, "true_probability": 0.05},
        {"picture": "test/0.png", "true": "a", "predicted": "b", "probability": 0.7, "true_probability": 0.2},
    ]
    assert len(worst_mistakes(Answers(paths, targets, probabilities), data_set, 1)) == 1
