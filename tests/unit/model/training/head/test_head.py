"""The head on its features, once and searched."""

from __future__ import annotations

import csv
import dataclasses
import json
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from model.training.config import SELECTIONS, Recipe
from model.training.head import head as head_module
from model.training.head.feature_store import Features
from model.training.head.features import Views
from model.training.head.head import evaluate_head, fit_head, search, write_search
from model.training.loop.metrics import Trial
from model.training.loop.state import DivergedError
from model.training.loop.stopping import hot_epochs

CLASSES, DIMENSIONS = 5, 16
RECIPE = Recipe(epochs=8, batch_size=16, lr=0.01, weight_decay=0.1, label_smoothing=0.0, patience=0, seed=0)
SPACE = {"lr": (0.0001, 0.3), "batch_sizes": (8, 32, 128)}


def clouds(count: int, seed: int) -> Features:
    """Return a cloud of points per class, far enough apart to tell and near enough to be wrong now and then."""
    centres = np.random.default_rng(99).normal(0, 1, (CLASSES, DIMENSIONS))
    random = np.random.default_rng(seed)
    targets = random.choice(CLASSES, count)
    values = centres[targets] + random.normal(0, 1, (count, DIMENSIONS))
    return Features(values.astype(np.float32), targets)


@pytest.fixture(scope="module")
def views():
    return Views([clouds(240, 1), clouds(240, 2)], clouds(200, 3))


def new_head(*, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(DIMENSIONS, CLASSES))


def fit(head: nn.Module, views: Views, *, should_stop=lambda: False, on_epoch=lambda _: None, **recipe: object):
    recipe = dataclasses.replace(RECIPE, **recipe)
    return fit_head(head, views, recipe=recipe, should_stop=should_stop, on_epoch=on_epoch)


def find(views: Views, *, stop=lambda _: False, epochs: int = RECIPE.epochs, **options: object):
    """Search; return what was found, the head, and the trials that were reported."""
    head, done = new_head(dropout=0.1), []
    options = SPACE | {"recipe": dataclasses.replace(RECIPE, epochs=epochs), "trials": 12} | options
    return search(head, views, **options, on_trial=done.append, should_stop=lambda: stop(done)), head, done


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_head_that_normalises_batches_trains_on_five_images_in_batches_of_two(views):
    head = nn.Sequential(nn.Linear(DIMENSIONS, CLASSES), nn.BatchNorm1d(CLASSES))
    assert len(fit(head, Views([clouds(5, 1)], views.valid), batch_size=2, epochs=2).history) == 2


def test_the_head_learns_and_keeps_its_best_epoch_also_when_it_is_stopped(views):
    head = new_head()
    before = evaluate_head(head, views.valid)
    outcome = fit(head, views)
    assert outcome.best.loss < before.loss / 2
    assert outcome.best.accuracy > 0.9
    best = min(outcome.history, key=lambda epoch: epoch.valid_loss)
    assert (outcome.best_epoch, outcome.best.loss) == (best.epoch, best.valid_loss)
    assert evaluate_head(head, views.valid) == outcome.best
    epochs: list[object] = []
    outcome = fit(head, views, should_stop=lambda: len(epochs) >= 3, on_epoch=epochs.append)
    assert (outcome.interrupted, len(outcome.history)) == (True, 3)
    assert evaluate_head(head, views.valid) == outcome.best


def test_every_epoch_sees_every_image_of_the_next_view_once():
    seen: list[float] = []

    class Watching(nn.Linear):
        def forward(self, batch):
            if self.training:
                seen.extend(batch[:, 0].tolist())
            return super().forward(batch)

    def numbered(first: int, count: int) -> Features:
        return Features(np.arange(first, first + count, dtype=np.float32)[:, None], np.arange(count) % 2)

    # Views may differ in length: an image may be unreadable for one of them.
    fit(Watching(1, 2), Views([numbered(0, 10), numbered(100, 9)], numbered(0, 4)), epochs=3, batch_size=4, lr=1e-6)
    epochs = [seen[:10], seen[10:19], seen[19:]]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10)), list(range(100, 109)), list(range(10))]
    assert epochs[0] not in (sorted(epochs[0]), epochs[2])


def test_no_more_logits_are_in_memory_than_of_a_batch(monkeypatch):
    monkeypatch.setattr("model.training.head.head.EVALUATION_BATCH", 64)
    views, sizes, head = Views([clouds(333, 1)], clouds(205, 3)), [], new_head()
    head.register_forward_hook(lambda *arguments: sizes.append(len(arguments[-1])))
    monkeypatch.setattr(functional, "cross_entropy", watch := Mock(wraps=functional.cross_entropy))
    losses = [epoch.train_loss for epoch in fit(head, views, epochs=2, lr=1e-8).history]
    assert max(sizes) == 64
    assert max(len(call.args[0]) for call in watch.call_args_list) < 64 + RECIPE.batch_size
    values, targets = torch.from_numpy(views.train[0].values), torch.from_numpy(views.train[0].targets)
    assert losses == pytest.approx([functional.cross_entropy(new_head()(values), targets).item()] * 2, rel=1e-5)


@pytest.mark.parametrize("select", SELECTIONS)
def test_a_search_goes_by_the_selected_metric(views, select, tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=4, select=select, seed=5)
    found, head, _ = find(views, recipe=recipe)
    sign = 1 if select == "loss" else -1
    completed = [trial for trial in found.trials if trial.status == Trial.COMPLETED]
    assert found.best == min(completed, key=lambda trial: (sign * trial.objective, trial.loss))
    assert found.best.objective == getattr(found.fit.best, select.replace("-", "_"))
    assert evaluate_head(head, views.valid) == found.fit.best
    write_search(tmp_path, found, seconds=1.0)
    goal = {"metric": f"valid:{select.replace('-', '_')}", "type": "Minimize" if select == "loss" else "Maximize"}
    assert json.loads((tmp_path / "search.json").read_text())["objective"] == goal


def test_a_search_finds_the_same_again_and_keeps_the_best(views):
    found, head, reported = find(views)
    again, other, _ = find(views)
    assert reported == found.trials
    assert [trial.values() for trial in found.trials] == [trial.values() for trial in again.trials]
    assert same(head, other)
    low, high = SPACE["lr"]
    assert all(low <= trial.hyperparameters["lr"] <= high for trial in found.trials)
    assert {trial.hyperparameters["batch-size"] for trial in found.trials} <= set(SPACE["batch_sizes"])
    completed = [trial for trial in found.trials if trial.status == Trial.COMPLETED]
    assert found.best == min(completed, key=lambda trial: trial.objective)
    assert evaluate_head(head, views.valid).loss == found.best.objective == found.fit.best.loss
    alone = new_head(dropout=0.1)
    fit(alone, views, lr=found.recipe.lr, batch_size=found.recipe.batch_size)
    assert same(head, alone), "the best trial is what training with its values gives"


def test_trials_that_are_worse_than_most_are_pruned_after_the_hot_epochs(views, monkeypatch):
    stopped = []
    fit_fully = head_module.fit_head
    monkeypatch.setattr(head_module, "fit_head", lambda *a, **k: stopped.append(fit_fully(*a, **k)) or stopped[-1])
    found, _, _ = find(views, trials=25, epochs=10)
    pruned = [trial for trial in found.trials if trial.status == Trial.STOPPED]
    assert min(len(fitted.history) for fitted in stopped) == hot_epochs(10)
    assert all(trial.objective > found.best.objective for trial in pruned)


def test_a_trial_that_diverges_fails_however_good_its_best_epoch_was_and_a_training_keeps_that(views, monkeypatch):
    def lose(*given):
        return given[-1] * torch.nan if len(epochs) >= 2 else None

    head, epochs = new_head(), []
    head.register_forward_hook(lose)
    outcome = fit(head, views, on_epoch=epochs.append)
    assert (outcome.diverged_epoch, outcome.best_epoch, outcome.interrupted) == (3, 2, False)
    monkeypatch.setattr(head_module, "fit_head", lambda *_, **__: outcome)
    with pytest.raises(DivergedError, match="all 12 trials diverged"):
        find(views)


def test_a_search_that_is_stopped_keeps_the_best_so_far_if_there_is_one(views):
    found, head, done = find(views, trials=1000, stop=lambda done: len(done) >= 3)
    assert (found.trials, len(done)) == (done, 3)
    assert evaluate_head(head, views.valid).loss == found.best.objective
    asked: list[int] = []
    found, _, done = find(views, stop=lambda _: bool(asked.append(1)) or len(asked) > 2)  # in its first trial
    assert (found, done) == (None, [])


def test_trials_that_diverge_fail_and_what_is_written_says_so(views, tmp_path):
    found, _, _ = find(views, lr=(1e-4, 1e4), batch_sizes=(32,))
    write_search(tmp_path / "new", found, seconds=1.5)
    rows = list(csv.DictReader((tmp_path / "new" / "trials.csv").open(encoding="utf-8")))
    assert list(rows[0]) == ["trial", "status", "objective", "seconds", "lr", "batch-size"]
    assert [int(row["trial"]) for row in rows] == list(range(1, 13))
    assert {row["objective"] for row in rows if row["status"] == Trial.FAILED} == {""}
    best = min(float(row["objective"]) for row in rows if row["status"] == Trial.COMPLETED)
    document = json.loads((tmp_path / "new" / "search.json").read_text())
    assert document["best"]["objective"] == best
    assert (len(document["trials"]), document["seed"], document["seconds"]) == (12, RECIPE.seed, 1.5)
    with pytest.raises(DivergedError, match="all 3 trials diverged; search lower learning rates"):
        find(views, trials=3, lr=(1e6, 1e8))
