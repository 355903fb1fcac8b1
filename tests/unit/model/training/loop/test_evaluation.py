from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image
from serving_fixtures import COLOURS, LABELS, make_artifact

from model.core.predictor import Predictor
from model.training.data.dataset import discover
from model.training.data.image_folder import DataSetError
from model.training.loop.evaluation import Answers, evaluate_artifact, worst_mistakes


@pytest.fixture
def artifact(tmp_path):
    make_artifact(tmp_path / "artifact")
    return tmp_path / "artifact"


@pytest.fixture
def root(tmp_path):
    for split in ("train", "valid", "test"):
        for label, colour in zip(LABELS, COLOURS, strict=True):
            folder = tmp_path / "colours" / split / label
            folder.mkdir(parents=True)
            Image.new("RGB", (40, 30), colour).save(folder / "plain.png")
    return tmp_path / "colours"


def test_accuracy_and_loss_are_those_of_the_predictors_answers(artifact, root):
    # One picture of the three, a green one among the red, is classified wrong.
    Image.new("RGB", (40, 30), COLOURS[1]).save(root / "test" / LABELS[0] / "plain.png")
    data_set = discover(root)
    answers, skipped = evaluate_artifact(artifact, data_set, "test")
    evaluation = answers.evaluation()

    predictor = Predictor.load(artifact)
    scores = [predictor.predict(path.read_bytes()).scores for path in data_set.splits["test"].paths]
    expected = (
        -sum(math.log(row[target]) for row, target in zip(scores, data_set.splits["test"].targets, strict=True)) / 3
    )
    assert evaluation.accuracy == pytest.approx(2 / 3)
    assert evaluation.loss == pytest.approx(expected)
    assert sum(map(sum, evaluation.confusion_matrix)) == 3
    assert skipped == {}


def test_unreadable_images_are_named_and_not_counted_and_nothing_but_those_is_an_error(artifact, root):
    (root / "test" / LABELS[0] / "page.jpg").write_text("<html>")
    answers, skipped = evaluate_artifact(artifact, discover(root), "test")
    assert answers.evaluation().accuracy == 1.0
    assert [path.name for path in answers.paths] == ["plain.png"] * 3
    assert skipped.keys() == {f"test/{LABELS[0]}/page.jpg"}
    for path in (root / "test").rglob("*.png"):
        path.write_text("<html>")
    with pytest.raises(DataSetError, match="no picture of the test split is readable"):
        evaluate_artifact(artifact, discover(root), "test")


def test_a_model_of_other_classes_is_refused(artifact, root):
    for split in ("train", "valid", "test"):
        (root / split / LABELS[0]).rename(root / split / "Wolf")
    with pytest.raises(DataSetError, match="knows other classes"):
        evaluate_artifact(artifact, discover(root), "test")


def test_the_worst_mistakes_are_the_surest_ones(root):
    data_set = discover(root)
    paths = data_set.splits["test"].paths
    probabilities = np.array([[0.2, 0.7, 0.1], [0.9, 0.05, 0.05], [0.0, 0.1, 0.9]])
    mistakes = worst_mistakes(Answers(paths, np.array([0, 1, 2]), probabilities), data_set, 10)
    assert [(one.picture, one.true, one.predicted) for one in mistakes] == [
        (f"test/{data_set.labels[1]}/plain.png", data_set.labels[1], data_set.labels[0]),
        (f"test/{data_set.labels[0]}/plain.png", data_set.labels[0], data_set.labels[1]),
    ]
    assert [(one.probability, one.true_probability) for one in mistakes] == [(0.9, 0.05), (0.7, 0.2)]
    assert len(worst_mistakes(Answers(paths, np.array([0, 1, 2]), probabilities), data_set, 1)) == 1
