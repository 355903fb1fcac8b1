from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from serving_fixtures import COLOURS, LABELS, make_artifact

from model.training.config import Recipe
from model.training.data.dataset import discover
from model.training.data.image_folder import Split
from model.training.loop.evaluation import Answers, evaluate_artifact
from model.training.loop.metrics import (
    METRIC_DEFINITIONS,
    EpochMetrics,
    Evaluation,
    Trial,
    annealed_metrics,
    metrics_line,
    print_epoch,
)
from model.training.loop.state import TrainingState
from model.training.loop.stopping import WARM_UP, hot_epochs


def read(line: str, definitions: list[dict[str, str]] = METRIC_DEFINITIONS) -> dict[str, float]:
    """Read a line as SageMaker does: every expression over every line, the first group is the value."""
    found = {definition["Name"]: re.search(definition["Regex"], line) for definition in definitions}
    return {name: float(match.group(1)) for name, match in found.items() if match}


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.87654321, 123456.789, 1e6])
def test_lines_are_read_back_and_a_trials_is_no_epochs(value):
    near = pytest.approx(value, abs=5.1e-5)
    assert read(metrics_line(**vars(EpochMetrics(7, value, value, value, value, value)))) == {
        "train:loss": near, "valid:loss": near, "valid:accuracy": near, "valid:macro_f1": near,
        "train:images_per_second": pytest.approx(value, abs=5.1e-2),
    }  # fmt: skip
    assert read(metrics_line(test_loss=value, test_accuracy=value)) == {"test:loss": near, "test:accuracy": near}
    trial = Trial(3, Trial.COMPLETED, 1.0, {"lr": 0.0136801, "batch-size": 32}, value, value, value, value)
    line = metrics_line(**trial.values())
    assert line.startswith("trial=3 status=Completed lr=0.0136801 batch-size=32 trial_loss=")
    assert read(line) == {"trial:loss": near, "trial:accuracy": near, "trial:macro_f1": near}
    assert read(f"INFO decoded 720 + 180 images in {value} s; loss={value}") == {}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 120))
def test_the_learning_rate_is_above_half_its_peak_in_the_hot_epochs_and_in_no_others(epochs):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=8 * epochs, pct_start=WARM_UP)
    rates = []
    for _ in range(epochs):
        for _ in range(8):
            optimizer.step()
            schedule.step()
        rates.append(schedule.get_last_lr()[0])
    hot = hot_epochs(epochs)
    assert max(rates[hot:], default=0.0) < 0.5
    assert all(rate > 0.48 for rate in rates[max(1, round(0.2 * epochs)) : hot - 1])


def test_early_stopping_reads_the_objective_after_the_hot_epochs_and_the_best_at_the_end(capsys):
    for epoch in range(1, 11):
        print_epoch(EpochMetrics(epoch, 0, epoch, 0, 0, 0), epochs=10)
    lines = [*capsys.readouterr().out.splitlines(), metrics_line(best_epoch=9, select="loss", valid_loss=0.25)]
    judged = [
        found["valid:loss"] for line in lines if "valid:loss" in (found := read(line, annealed_metrics("valid:loss")))
    ]
    assert judged == [8, 9, 10, 0.25]
    assert [read(line)["valid:loss"] for line in lines] == [*range(1, 11), 0.25]


def evaluation(matrix: list[list[int]], loss: float = 1.0) -> Evaluation:
    images = [pair for pair, count in np.ndenumerate(matrix) for _ in range(count)]
    return Evaluation.of([loss] * len(images), *np.transpose(images), classes=len(matrix))


def test_precision_recall_and_f1_of_every_class_and_their_mean():
    recorded = evaluation([[2, 1, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).recorded()
    assert [tuple(one.values()) for one in recorded["per_class"]] == [
        (3, pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3)),
        (1, pytest.approx(1 / 3), 1.0, 0.5),
        (2, None, 0.0, 0.0),  # never guessed
        (0, None, None, None),  # neither there nor guessed
    ]
    assert recorded["macro_f1"] == pytest.approx((2 / 3 + 0.5 + 0) / 3)


def test_the_interval_of_the_accuracy_is_wilsons():
    assert evaluation([[90, 10], [0, 0]]).accuracy_interval() == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert evaluation([[10, 0], [0, 0]]).accuracy_interval() == pytest.approx((0.7225, 1.0), abs=1e-4)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_the_cells_are_those_of_the_confusion_matrix_that_are_not_0(images):
    matrix = np.zeros((5, 5), int)
    for pair in images:
        matrix[pair] += 1
    found = Evaluation.of([0.5] * len(images), *zip(*images, strict=True), classes=5)
    assert [tuple(cell) for cell in found.cells] == [
        (*map(int, at), count) for at, count in np.ndenumerate(matrix) if count
    ]
    assert found.accuracy == np.trace(matrix) / len(images)


@pytest.mark.parametrize(("select", "best"), [("loss", 1), ("accuracy", 2), ("macro-f1", 3)])
def test_the_best_epoch_is_that_of_the_selected_metric_and_of_equally_good_ones_the_loss_decides(select, best):
    # The second is right more often, of the classes alike the third.
    matrices = [[6, 4], [1, 1]], [[10, 0], [2, 0]], [[7, 3], [0, 2]], [[10, 0], [2, 0]], [[7, 3], [0, 2]]
    state = TrainingState(torch.nn.Linear(1, 1), Recipe(select=select), steps=9)
    for matrix, loss in zip(matrices, (0.1, 0.3, 0.3, 0.4, 0.4), strict=True):
        state.seconds = 1.0
        state.finish_epoch(1.0, 1, evaluation(matrix, loss))
    assert state.best_epoch == best


def test_a_test_split_of_nothing_but_unreadable_images_is_a_warning(tmp_path, caplog):
    make_artifact(tmp_path / "artifact")
    for split in ("train", "valid", "test"):
        for label, colour in zip(LABELS, COLOURS, strict=True):
            (tmp_path / split / label).mkdir(parents=True)
            Image.new("RGB", (40, 30), colour).save(tmp_path / split / label / "plain.png")
    for path in (tmp_path / "test").rglob("*.png"):
        path.write_text("<html>")
    assert evaluate_artifact(tmp_path / "artifact", discover(tmp_path).splits["test"]) is None
    assert "no image of the test split is readable" in caplog.text


def test_the_worst_mistakes_are_the_surest_ones():
    root, labels = Path("data"), ("a", "b", "c")
    images = Split(root, "test", tuple(root / "test" / f"{number}.png" for number in range(3)), (0, 1, 2))
    answers = Answers(images, np.array([[0.2, 0.7, 0.1], [0.9, 0.05, 0.05], [0.0, 0.1, 0.9]]))
    assert answers.worst_mistakes(labels, 10) == [
        {"image": "test/1.png", "true": "b", "predicted": "a", "probability": 0.9, "true_probability": 0.05},
        {"image": "test/0.png", "true": "a", "predicted": "b", "probability": 0.7, "true_probability": 0.2},
    ]
    assert len(answers.worst_mistakes(labels, 1)) == 1
