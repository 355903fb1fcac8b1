"""Train a network's head on features that were computed beforehand, once or in a search.

A trial takes less than a second, where a tuning job of SageMaker starts a training job for each. So one job tries all.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import Recipe
from ..data.batches import Batch, draw_order, image_weights, steps_per_epoch
from ..loop.metrics import EpochMetrics, Evaluation, Trial, objective
from ..loop.state import DivergedError, Fit, TrainingState
from ..loop.stopping import hot_epochs
from .feature_store import Features
from .features import Views

log = logging.getLogger(__name__)

TRIALS_FILE, SEARCH_FILE = "trials.csv", "search.json"
# Trials before this many have been finished are not compared; the search draws its first ten at random anyway.
UNCOMPARED_TRIALS = 5
# Images whose logits are in memory at a time: 40 MB with 10,000 classes.
EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class Search:
    """What a search found: all trials; the best, which was completed, its training, and what it was trained with."""

    trials: list[Trial]
    best: Trial
    fit: Fit
    recipe: Recipe


def fit_head(
    head: nn.Module,
    views: Views,
    *,
    recipe: Recipe,
    should_stop: Callable[[], bool],
    on_epoch: Callable[[EpochMetrics], bool | None],
    keep_best: Callable[[Fit], None] = lambda _: None,
) -> Fit:
    """Train a head, which is on the CPU, and leave the weights of its best epoch in it.

    As `engine.fit`, but `should_stop` is asked after every epoch, and when `on_epoch` returns True, the training ends.
    Every epoch takes the next view of all images, and after the last one the first again.
    """
    torch.manual_seed(recipe.seed)  # dropout draws from the global generator
    counts = [steps_per_epoch(len(view), recipe.batch_size) for view in views.train]
    steps = [counts[epoch % len(counts)] for epoch in range(recipe.epochs)]
    state = TrainingState(head, recipe, steps=sum(steps))
    ended = interrupted = False
    while not ended and not state.is_finished():
        view = views.train[(state.epoch - 1) % len(views.train)]
        started = time.perf_counter()
        _train_one_epoch(head, view, steps[state.epoch - 1], state, recipe)
        state.seconds = time.perf_counter() - started
        train_loss = state.total_loss.item() / len(view)
        metrics = state.finish_epoch(train_loss, len(view), evaluate_head(state.evaluated, views.valid))
        if metrics is None:
            break
        keep_best(state.outcome())
        ended = bool(on_epoch(metrics))
        if state.epoch <= recipe.epochs and not ended and should_stop():
            ended = interrupted = True
    head.load_state_dict(state.best_weights)
    return state.outcome(interrupted=interrupted)


def _train_one_epoch(head: nn.Module, view: Features, steps: int, state: TrainingState, recipe: Recipe) -> None:
    """Make so many steps over all features, or fewer when a loss is infinite or not a number."""
    head.train()
    order = draw_order(view.targets, recipe.class_weights, state.generator)
    # Copying everything into the new order once is faster than picking every batch.
    values, targets = torch.from_numpy(view.values[order]), torch.from_numpy(view.targets[order])
    weights = torch.from_numpy(image_weights(view.targets)[order]) if recipe.class_weights == "balanced" else None
    logits_seen: list[Tensor] = []
    summed = 0
    for indices in torch.arange(len(order)).tensor_split(steps):  # their sizes differ by at most one
        part = slice(int(indices[0]), int(indices[-1]) + 1)
        ours = None if weights is None else weights[part]
        total = len(indices) if ours is None else float(ours.sum())
        batch = Batch(values[part], targets[part], weights=ours, scale=1 / total)
        logits = head(batch.inputs)
        state.add_gradients(batch.loss(logits, label_smoothing=recipe.label_smoothing))
        state.update()
        logits_seen.append(logits.detach())
        if part.stop - summed >= EVALUATION_BATCH or part.stop == len(order):  # for every step it would cost a quarter
            seen = targets[summed : part.stop]
            state.total_loss += functional.cross_entropy(torch.cat(logits_seen), seen, reduction="sum")
            logits_seen, summed = [], part.stop
            if state.is_lost:
                break


@torch.inference_mode()
def evaluate_head(head: nn.Module, features: Features) -> Evaluation:
    """Measure a head on features."""
    head.eval()
    losses, predicted = [], []
    values, targets = (torch.from_numpy(array).split(EVALUATION_BATCH) for array in (features.values, features.targets))
    for own_values, own_targets in zip(values, targets, strict=True):
        logits = head(own_values)
        losses.append(functional.cross_entropy(logits, own_targets, reduction="none"))
        predicted.append(logits.argmax(dim=1))
    return Evaluation.of(torch.cat(losses), features.targets, torch.cat(predicted), logits.shape[1])


def search(
    head: nn.Module,
    views: Views,
    *,
    recipe: Recipe,
    lr: tuple[float, float],
    batch_sizes: Sequence[int],
    trials: int,
    should_stop: Callable[[], bool],
    on_trial: Callable[[Trial], None],
    keep_best: Callable[[Fit], None] = lambda _: None,
) -> Search | None:
    """Train the head again and again, each time with values that the trials before make promising.

    Bayesian search between two learning rates, on a logarithmic scale, and among batch sizes (Bergstra et al. 2011).
    Every trial begins with the head's weights and the recipe's seed. The head is left with the weights of the best
    trial; None: `should_stop` ended the search before one was completed. Raises DivergedError when all trials diverged.
    """
    import optuna  # takes a second, and only a search needs it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    goal = objective(recipe.select)
    study = optuna.create_study(
        direction="minimize" if goal["Type"] == "Minimize" else "maximize",
        sampler=optuna.samplers.TPESampler(seed=recipe.seed % 2**32),
        pruner=optuna.pruners.MedianPruner(UNCOMPARED_TRIALS, n_warmup_steps=hot_epochs(recipe.epochs)),
    )
    states = optuna.trial.TrialState
    outcomes = {Trial.COMPLETED: states.COMPLETE, Trial.STOPPED: states.PRUNED, Trial.FAILED: states.FAIL}
    beginning = copy.deepcopy(head.state_dict())
    done: list[Trial] = []
    best: Search | None = None
    lowest = (math.inf, math.inf)
    while len(done) < trials and not should_stop():
        proposal = study.ask()
        tried = dataclasses.replace(
            recipe,
            lr=proposal.suggest_float("lr", *lr, log=True),
            batch_size=proposal.suggest_categorical("batch_size", batch_sizes),
        )
        head.load_state_dict(beginning)
        trial, fit = _run_trial(head, views, tried, proposal, number=len(done) + 1, should_stop=should_stop)
        if fit is not None and fit.interrupted:
            break
        completed = trial.status == Trial.COMPLETED
        study.tell(proposal, trial.objective if completed else None, outcomes[trial.status])
        done.append(trial)
        on_trial(trial)
        if completed and fit is not None and fit.best is not None and (rank := fit.best.rank(recipe.select)) < lowest:
            lowest, best = rank, Search(done, trial, fit, tried)
            keep_best(dataclasses.replace(fit, interrupted=True))
    if best is None and done:
        raise DivergedError(f"all {len(done)} trials diverged; search lower learning rates than {lr[0]:g} to {lr[1]:g}")
    head.load_state_dict(best.fit.weights if best else beginning)
    return best


def _run_trial(
    head: nn.Module, views: Views, recipe: Recipe, proposal: Any, *, number: int, should_stop: Callable[[], bool]
) -> tuple[Trial, Fit | None]:
    started = time.perf_counter()
    status, fit = Trial.COMPLETED, None
    measured: dict[str, float] = {}

    def is_pruned(epoch: EpochMetrics) -> bool:
        nonlocal status
        proposal.report(epoch.selected(recipe.select), epoch.epoch)
        if epoch.epoch < recipe.epochs and proposal.should_prune():
            status = Trial.STOPPED
        return status == Trial.STOPPED

    try:
        fit = fit_head(head, views, recipe=recipe, should_stop=should_stop, on_epoch=is_pruned)
    except DivergedError as error:
        status = Trial.FAILED
        log.info("trial %d: %s", number, error)
    if fit is not None and fit.diverged_epoch:
        status = Trial.FAILED
        log.info("trial %d diverged in epoch %d", number, fit.diverged_epoch)
    elif fit is not None and fit.best is not None:
        best = fit.history[fit.best_epoch - 1]
        measured = {name: best.selected(name) for name in ("loss", "accuracy", "macro_f1")}
        measured["objective"] = best.selected(recipe.select)
    seconds = round(time.perf_counter() - started, 4)
    values = {"lr": recipe.lr, "batch-size": recipe.batch_size}
    return Trial(number, status, seconds, values, **measured), fit


def write_search(folder: Path, found: Search, *, seconds: float) -> None:
    """Write `trials.csv` and `search.json`, in the columns and words of the report on tuning jobs."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / TRIALS_FILE).open("w", newline="", encoding="utf-8") as file:
        columns = ["trial", "status", "objective", "seconds", *found.best.hyperparameters]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(vars(trial) | trial.hyperparameters for trial in found.trials)
    goal = objective(found.recipe.select)
    document = {
        "strategy": "Bayesian",
        "objective": {"metric": goal["MetricName"], "type": goal["Type"]},
        "seed": found.recipe.seed,
        "seconds": seconds,
        "best": dataclasses.asdict(found.best),
        "trials": [dataclasses.asdict(trial) for trial in found.trials],
    }
    (folder / SEARCH_FILE).write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
