from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_fixtures import COLOURS, LABELS, make_artifact

from model.training.data.dataset import DataSet, Split, discover
from model.training.data.image_folder import DataSetError
from model.training.loop.evaluation import Answers, evaluate_artifact, worst_mistakes


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
