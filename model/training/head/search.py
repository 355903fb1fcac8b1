"""Tuning inside one training job: trials of the head on the same cached features.

A tuning job of SageMaker starts a training job for every trial. Once the features are there, a trial of the head takes
less than a second, so one job on one instance tries them all.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..config import Recipe
from ..loop.metrics import EpochMetrics, Trial
from ..loop.outcome import DivergedError, Fit, KeepBest
from .features import Views
from .head import fit_head

log = logging.getLogger(__name__)

TRIALS_FILE, SEARCH_FILE = "trials.csv", "search.json"
# Trials before this many have been finished are not compared; the search draws its first ten at random anyway.
UNCOMPARED_TRIALS = 5


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes
    ----------
    lr : tuple of float
        Lowest and highest peak learning rate; searched on a logarithmic scale.
    batch_sizes : tuple of int
        The batch sizes to choose from.
    """

    lr: tuple[float, float]
    batch_sizes: tuple[int, ...]


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes
    ----------
    trials : list of Trial
    best : Trial
        The completed one with the lowest objective.
    fit : Fit
        Its training; the head has its weights.
    recipe : Recipe
        What it was trained with.
    """

    trials: list[Trial]
    best: Trial
    fit: Fit
    recipe: Recipe


def search(
    head: nn.Module,
    views: Views,
    *,
    recipe: Recipe,
    space: Space,
    trials: int,
    should_stop: Callable[[], bool],
    on_trial: Callable[[Trial], None],
    keep_best: KeepBest = lambda outcome, weights: None,
) -> Search | None:
    """Train the head again and again, each time with values that the trials before make promising.

    Bayesian search by a tree-structured Parzen estimator (Bergstra et al. 2011). Every trial begins with the same
    weights and the recipe's seed, and so does the search, so the same call finds the same.

    Parameters
    ----------
    head : nn.Module
        Its weights now are where every trial begins; left with those of the best trial.
    views, recipe, space
        The recipe says all that is not searched.
    trials : int
        At most this many; `should_stop` ends the search, too, with the best trial so far.
    on_trial, keep_best : callable
        Called with every trial when it has ended, and with every one that is the best so far (`engine.fit`).

    Returns
    -------
    Search or None
        None when not one trial was completed before it was stopped.

    Raises
    ------
    DivergedError
        When every trial diverged.
    """
    import optuna  # takes a second, and only a search needs it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=recipe.seed % 2**32),
        # While the learning rate is high the loss says little, so trials are compared in their second half.
        pruner=optuna.pruners.MedianPruner(UNCOMPARED_TRIALS, n_warmup_steps=recipe.epochs // 2),
    )
    states = optuna.trial.TrialState
    outcomes = {Trial.COMPLETED: states.COMPLETE, Trial.STOPPED: states.PRUNED, Trial.FAILED: states.FAIL}
    beginning = copy.deepcopy(head.state_dict())
    done: list[Trial] = []
    best: Search | None = None
    lowest, best_weights = math.inf, beginning
    while len(done) < trials and not should_stop():
        proposal = study.ask()
        lr = proposal.suggest_float("lr", *space.lr, log=True)
        batch_size = proposal.suggest_categorical("batch_size", space.batch_sizes)
        tried = dataclasses.replace(recipe, lr=lr, batch_size=batch_size)
        head.load_state_dict(beginning)
        trial, fit = _run_trial(head, views, tried, proposal, number=len(done) + 1, should_stop=should_stop)
        if fit is not None and fit.interrupted:
            break
        objective = trial.objective if trial.status == Trial.COMPLETED else None
        study.tell(proposal, objective, outcomes[trial.status])
        done.append(trial)
        on_trial(trial)
        if fit is not None and objective is not None and objective < lowest:
            lowest, best, best_weights = objective, Search(done, trial, fit, tried), copy.deepcopy(head.state_dict())
            keep_best(dataclasses.replace(fit, interrupted=True), head.state_dict)
    if best is None and done:
        raise DivergedError(
            f"all {len(done)} trials diverged; search lower learning rates than {space.lr[0]:g} to {space.lr[1]:g}"
        )
    head.load_state_dict(best_weights)
    return best


def _run_trial(
    head: nn.Module, views: Views, recipe: Recipe, proposal: Any, *, number: int, should_stop: Callable[[], bool]
) -> tuple[Trial, Fit | None]:
    started = time.perf_counter()
    status, fit = Trial.COMPLETED, None

    def is_pruned(epoch: EpochMetrics) -> bool:
        nonlocal status
        proposal.report(epoch.valid_loss, epoch.epoch)
        if epoch.epoch < recipe.epochs and proposal.should_prune():
            status = Trial.STOPPED
        return status == Trial.STOPPED

    try:
        fit = fit_head(head, views, recipe=recipe, should_stop=should_stop, on_epoch=is_pruned)
    except DivergedError as error:
        status = Trial.FAILED
        log.info("trial %d: %s", number, error)
    best = fit.best if fit is not None else None
    trial = Trial(
        number,
        status,
        best.loss if best else None,
        best.accuracy if best else None,
        time.perf_counter() - started,
        {"lr": recipe.lr, "batch-size": recipe.batch_size},
    )
    return trial, fit


def write_search(folder: Path, found: Search, *, seconds: float, seed: int) -> None:
    """Write `trials.csv` and `search.json`, in the columns and words of the report on tuning jobs."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "trial": trial.trial,
            "status": trial.status,
            "objective": trial.objective,
            "seconds": round(trial.seconds, 4),
            **trial.hyperparameters,
        }
        for trial in found.trials
    ]
    with (folder / TRIALS_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    document = {
        "strategy": "Bayesian",
        "objective": {"metric": "valid:loss", "type": "Minimize"},
        "seed": seed,
        "seconds": seconds,
        "best": dataclasses.asdict(found.best),
        "trials": [dataclasses.asdict(trial) for trial in found.trials],
    }
    (folder / SEARCH_FILE).write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
