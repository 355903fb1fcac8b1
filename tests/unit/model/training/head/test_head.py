"""The head on its features, once and searched."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from model.training.config import Recipe
from model.training.head.feature_store import Features
from model.training.head.features import Views
from model.training.head.head import evaluate_head, fit_head
from model.training.head.search import Space, search, write_search
from model.training.loop.metrics import METRIC_DEFINITIONS, Trial
from model.training.loop.outcome import DivergedError

CLASSES, DIMENSIONS = 5, 16
RECIPE = Recipe(epochs=8, batch_size=16, lr=0.01, weight_decay=0.1, label_smoothing=0.0, patience=0, seed=0)
SPACE = Space((0.0001, 0.3), (8, 32, 128))
WILD = Space((1e-4, 1e4), (32,))


def clouds(count: int, seed: int, *, rare: bool = False) -> Features:
    """Return a cloud of points per class, far enough apart to tell and near enough to be wrong now and then."""
    centres = np.random.default_rng(99).normal(0, 1, (CLASSES, DIMENSIONS))
    random = np.random.default_rng(seed)
    shares = [0.9] + [0.1 / (CLASSES - 1)] * (CLASSES - 1) if rare else None
    targets = random.choice(CLASSES, count, p=shares)
    values = centres[targets] + random.normal(0, 1, (count, DIMENSIONS))
    return Features(values.astype(np.float32), targets)


@pytest.fixture(scope="module")
def views():
    return Views([clouds(240, 1), clouds(240, 2)], clouds(200, 3))


def new_head(seed: int = 0, *, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(DIMENSIONS, CLASSES))


def fit(head: nn.Module, views: Views, *, should_stop=lambda: False, on_epoch=lambda _: None, **recipe: object):
    recipe = dataclasses.replace(RECIPE, **recipe)
    return fit_head(head, views, recipe=recipe, should_stop=should_stop, on_epoch=on_epoch)


def find(views: Views, *, trials: int = 12, space: Space = SPACE, should_stop=lambda: False, **recipe: object):
    """Search; return what was found, the head, and the trials that were reported."""
    head, reported = new_head(dropout=0.1), []
    recipe = dataclasses.replace(RECIPE, **recipe)
    found = search(
        head, views, recipe=recipe, space=space, trials=trials, on_trial=reported.append, should_stop=should_stop
    )
    return found, head, reported


def test_the_head_learns_and_keeps_its_best_epoch(views):
    head = new_head()
    before = evaluate_head(head, views.valid)
    outcome = fit(head, views)
    assert outcome.best.loss < before.loss / 2
    assert outcome.best.accuracy > 0.9
    assert [epoch.epoch for epoch in outcome.history] == list(range(1, 9))
    best = min(outcome.history, key=lambda epoch: epoch.valid_loss)
    assert (outcome.best_epoch, outcome.best.loss) == (best.epoch, best.valid_loss)
    assert evaluate_head(head, views.valid) == outcome.best


def test_the_validation_loss_is_the_mean_over_images_by_hand(views):
    head = new_head()
    layer = head[1]
    logits = views.valid.values.astype(np.float64) @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    log_sums = np.log(np.exp(logits).sum(1))
    expected = (log_sums - logits[np.arange(len(logits)), views.valid.targets]).mean()
    evaluation = evaluate_head(head, views.valid)
    assert evaluation.loss == pytest.approx(expected, rel=1e-5)
    assert evaluation.accuracy == (logits.argmax(1) == views.valid.targets).mean()


def test_the_same_seed_gives_the_same_weights_also_with_dropout(views):
    weights = []
    for seed in (0, 0, 1):
        head = new_head(dropout=0.5)
        torch.rand(len(weights) + 3)  # what was drawn before does not matter
        fit(head, views, seed=seed)
        weights.append(head[1].weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_every_epoch_sees_every_image_of_the_next_view_once():
    seen: list[float] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 2)

        def forward(self, batch):
            if self.training:
                seen.extend(batch[:, 0].tolist())
            return self.layer(batch)

    def numbered(first: int, count: int) -> Features:
        return Features(np.arange(first, first + count, dtype=np.float32)[:, None], np.arange(count) % 2)

    # Views may differ in length: an image may be unreadable for one of them.
    views = Views([numbered(0, 10), numbered(100, 9), numbered(200, 10)], numbered(0, 4))
    fit(Watching(), views, epochs=4, batch_size=4, lr=1e-6)
    epochs = [seen[:10], seen[10:19], seen[19:29], seen[29:]]
    assert [sorted(epoch) for epoch in epochs] == [
        [float(value) for value in range(first, first + count)]
        for first, count in ((0, 10), (100, 9), (200, 10), (0, 10))
    ]
    assert epochs[0] not in (sorted(epochs[0]), epochs[3])


def test_patience_ends_it_early(views):
    # A head that was trained before gets worse at this rate.
    head = new_head()
    fit(head, views)
    outcome = fit(head, views, epochs=50, lr=0.5, patience=2)
    assert len(outcome.history) == outcome.best_epoch + 2
    assert not outcome.interrupted


def test_a_stop_keeps_the_best_so_far(views):
    epochs: list[object] = []
    head = new_head()
    outcome = fit(head, views, should_stop=lambda: len(epochs) >= 3, on_epoch=epochs.append)
    assert (outcome.interrupted, len(outcome.history)) == (True, 3)
    assert evaluate_head(head, views.valid) == outcome.best


def test_divergence_is_an_error_that_names_the_learning_rate(views):
    broken = Views([Features(np.full_like(views.train[0].values, 3e38), views.train[0].targets)], views.valid)
    with pytest.raises(DivergedError, match=r"diverged in epoch 1.*below 0\.01"):
        fit(new_head(), broken)


def test_weighted_classes_help_the_rare_ones():
    views = Views([clouds(600, 1, rare=True)], clouds(400, 2))
    recalls = {}
    for weights in ("none", "balanced", "sampler"):
        per_class = [one.recall for one in fit(new_head(), views, class_weights=weights).best.per_class()]
        recalls[weights] = sum(per_class[1:])
    assert min(recalls["balanced"], recalls["sampler"]) > recalls["none"] + 0.2


def test_a_moving_average_of_the_weights_is_what_is_kept(views):
    head, plain = new_head(), new_head()
    averaged = fit(head, views, ema=0.9)
    fit(plain, views)
    assert evaluate_head(head, views.valid) == averaged.best
    assert not torch.equal(head[1].weight, plain[1].weight)


def test_a_search_finds_the_same_again_and_keeps_the_best(views):
    found, head, reported = find(views)
    again, other, _ = find(views)
    assert reported == found.trials
    assert [trial.trial for trial in found.trials] == list(range(1, 13))
    timeless = [[dataclasses.replace(trial, seconds=0) for trial in each.trials] for each in (found, again)]
    assert timeless[0] == timeless[1]
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), other.parameters(), strict=True))
    completed = [trial for trial in found.trials if trial.status == Trial.COMPLETED]
    assert found.best == min(completed, key=lambda trial: trial.objective)
    assert found.best.objective < max(trial.objective for trial in found.trials) / 2
    assert evaluate_head(head, views.valid).loss == found.best.objective == found.fit.best.loss
    # The best trial is what training with its values gives.
    alone = new_head(dropout=0.1)
    fit(alone, views, lr=found.recipe.lr, batch_size=found.recipe.batch_size)
    assert found.best.hyperparameters == {"lr": found.recipe.lr, "batch-size": found.recipe.batch_size}
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), alone.parameters(), strict=True))


def test_another_seed_searches_elsewhere_but_within_the_bounds(views):
    tried = [[trial.hyperparameters for trial in find(views, seed=seed, trials=8)[0].trials] for seed in (0, 1)]
    assert tried[0] != tried[1]
    for values in tried[0] + tried[1]:
        assert SPACE.lr[0] <= values["lr"] <= SPACE.lr[1]
        assert values["batch-size"] in SPACE.batch_sizes
    # On a logarithmic scale: half of the draws are below the geometric mean, where a linear one would put 2 in 100.
    assert sum(values["lr"] < math.sqrt(SPACE.lr[0] * SPACE.lr[1]) for values in tried[0] + tried[1]) >= 3


def test_trials_that_are_worse_than_most_are_pruned(views):
    found, _, _ = find(views, trials=25, epochs=10)
    pruned = [trial for trial in found.trials if trial.status == Trial.STOPPED]
    assert pruned
    assert all(trial.objective > found.best.objective for trial in pruned)


def test_a_search_that_is_stopped_keeps_the_best_so_far_if_there_is_one(views):
    done: list[Trial] = []
    head = new_head()
    found = search(
        head, views, recipe=RECIPE, space=SPACE, trials=1000, on_trial=done.append, should_stop=lambda: len(done) >= 3
    )
    assert found.trials == done
    assert len(done) == 3
    assert evaluate_head(head, views.valid).loss == found.best.objective
    asked: list[int] = []
    found, _, reported = find(views, should_stop=lambda: bool(asked.append(1)) or len(asked) > 2)  # in its first trial
    assert (found, reported) == (None, [])


def test_trials_that_diverge_fail_and_what_is_written_says_so(views, tmp_path):
    found, _, _ = find(views, space=WILD)
    write_search(tmp_path / "new", found, seconds=1.5, seed=7)
    rows = list(csv.DictReader((tmp_path / "new" / "trials.csv").open(encoding="utf-8")))
    assert list(rows[0]) == ["trial", "status", "objective", "seconds", "lr", "batch-size"]
    assert [int(row["trial"]) for row in rows] == list(range(1, 13))
    assert {row["objective"] for row in rows if row["status"] == Trial.FAILED} == {""}
    best = min(float(row["objective"]) for row in rows if row["status"] == Trial.COMPLETED)
    document = json.loads((tmp_path / "new" / "search.json").read_text())
    assert document["best"]["objective"] == best
    assert (len(document["trials"]), document["seed"], document["seconds"]) == (12, 7, 1.5)


def test_when_all_trials_diverge_the_message_says_what_to_do(views):
    with pytest.raises(DivergedError, match="all 3 trials diverged; search lower learning rates"):
        find(views, trials=3, space=Space((1e6, 1e8), (32,)))


def test_a_trials_line_is_no_epoch_for_the_service(views):
    line = find(views, trials=1)[0].best.line()
    read = {d["Name"] for d in METRIC_DEFINITIONS if re.search(d["Regex"], line)}
    assert read == {"trial:loss", "trial:accuracy"}
