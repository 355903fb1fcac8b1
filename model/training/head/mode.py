"""`--mode head`: the backbone frozen, its features computed once, and the head trained on them, perhaps many times."""

from __future__ import annotations

import argparse
import copy
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..data.augment import Augmentation
from ..data.dataset import DataSet, Fingerprint
from ..distributed.group import Workers
from ..loop.engine import Fit, KeepBest, Recipe
from ..loop.metrics import EpochMetrics, Trial
from ..loop.mixed_precision import half_type
from ..weights import RANDOM
from .backbone import split
from .feature_store import FeatureStore
from .features import Extraction, Views, compute
from .head import fit_head
from .search import Space, search, write_search

log = logging.getLogger(__name__)


def train_head(
    arguments: argparse.Namespace,
    network: nn.Module,
    *,
    data_set: DataSet,
    identity: Fingerprint,
    augmentation: Augmentation,
    recipe: Recipe,
    device: torch.device,
    threads: int,
    workers: Workers,
    should_stop: Callable[[], bool],
    on_epoch: Callable[[EpochMetrics], None],
    keep_best: KeepBest,
) -> tuple[Fit, dict[str, str]]:
    """Train a network's last layer and nothing else of it.

    Parameters
    ----------
    arguments : argparse.Namespace
        From `parse_arguments`. After a search its `lr` and `batch_size` are those that were found.
    network : nn.Module
        On the CPU. Its last layer is trained in place.
    data_set : DataSet
    identity : Fingerprint
        Of the data set.
    augmentation : Augmentation
        Makes the views but the first.
    recipe : Recipe
    device : torch.device
        Computes the features.
    threads : int
        For that, on this worker.
    workers : Workers
        They share the features' computation; the main one then trains the head.
    should_stop : callable
    on_epoch : callable
        Called with the metrics of every epoch, after a search with those of the best trial.
    keep_best : callable
        As for `engine.fit`; the weights are those of the whole network.

    Returns
    -------
    Fit
        Without epochs when it was stopped before, and on all workers but the main one.
    dict of str to str
        Training pictures that could not be read, with the reasons.

    Raises
    ------
    DataSetError, NetworkError, DivergedError, ExportError, OSError
        With a message for a person.
    """
    started = time.perf_counter()
    if arguments.weights == RANDOM:
        log.warning("the backbone has random weights, and --mode head does not train it; name some with --weights")
    nothing = Fit(history=[], best_epoch=0, best=None, interrupted=True)
    backbone, head = split(network, arguments.architecture, augmentation.preprocessing.input_size)
    half = half_type(arguments.mixed_precision, device)
    extraction = Extraction(
        backbone, data_set, identity, augmentation, arguments.views, recipe.seed, device, threads, half
    )
    views = compute(extraction, FeatureStore(arguments.feature_cache), workers, should_stop)
    if views is None:
        if should_stop():
            log.info("the features so far are in %s; the same command goes on from there", arguments.feature_cache)
        return nothing, {}
    log.info("features of %d values, ready after %.1f s", views.valid.values.shape[1], time.perf_counter() - started)

    def keep_best_head(outcome: Fit, weights: Callable[[], Mapping[str, Any]]) -> None:
        keep_best(outcome, lambda: _with_head(network, head, weights()))

    if arguments.search:
        found = _search(arguments, head, views, recipe, should_stop, on_epoch, keep_best_head)
        return found or nothing, views.skipped
    outcome = fit_head(head, views, recipe=recipe, should_stop=should_stop, on_epoch=on_epoch, keep_best=keep_best_head)
    return outcome, views.skipped


def _with_head(network: nn.Module, head: nn.Module, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's weights with others in its head, which stays as it is."""
    current = copy.deepcopy(head.state_dict())
    head.load_state_dict(weights)
    whole = copy.deepcopy(network.state_dict())
    head.load_state_dict(current)
    return whole


def _search(
    arguments: argparse.Namespace,
    head: nn.Module,
    views: Views,
    recipe: Recipe,
    should_stop: Callable[[], bool],
    on_epoch: Callable[[EpochMetrics], None],
    keep_best: KeepBest,
) -> Fit | None:
    started = time.perf_counter()
    found = search(
        head,
        views,
        recipe=recipe,
        space=Space(arguments.search_lr, arguments.search_batch_sizes),
        trials=arguments.search,
        should_stop=should_stop,
        on_trial=_print_trial,
        keep_best=keep_best,
    )
    if found is None:
        return None
    seconds = time.perf_counter() - started
    write_search(arguments.output_data_dir, found, seconds=seconds, seed=recipe.seed)
    # What is recorded with the model is what it was trained with.
    for name, value in found.best.hyperparameters.items():
        setattr(arguments, name.replace("-", "_"), value)
    log.info("%d trials in %.1f s; the best: %s", len(found.trials), seconds, found.best.line())
    for epoch in found.fit.history:
        on_epoch(epoch)
    return found.fit


def _print_trial(trial: Trial) -> None:
    print(trial.line(), flush=True)  # noqa: T201 - the log is how SageMaker reads metrics
