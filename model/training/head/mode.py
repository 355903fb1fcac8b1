"""`--mode head`: the backbone frozen, its features computed once, and the head trained on them, perhaps many times."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..artifact.finishing import Trained
from ..config import Recipe, TrainingConfig
from ..data.augment import Augmentation
from ..distributed.group import Workers
from ..loop.engine import half_type
from ..loop.metrics import print_epoch, print_metrics
from ..loop.state import NOTHING, Fit, KeepBest
from ..weights import RANDOM
from .backbone import split
from .extraction import Extraction
from .feature_store import FeatureStore
from .features import compute
from .head import Space, fit_head, search, write_search

log = logging.getLogger(__name__)


def train_head(
    config: TrainingConfig,
    trained: Trained,
    *,
    device: torch.device,
    threads: int,
    workers: Workers,
    should_stop: Callable[[], bool],
    keep_best: KeepBest,
) -> tuple[Fit, dict[str, str], Recipe]:
    """Train the last layer of a network on the CPU, in place, and nothing else of it.

    All workers compute features, each with so many threads; the main one then trains the head and prints the epochs,
    after a search those of the best trial. `keep_best` gets the weights of the whole network.

    Returns what was reached, without epochs when it was stopped before and on all workers but the main one; the
    training images that could not be read; the recipe, perhaps what the search found.
    """
    started = time.perf_counter()
    recipe, network = config.recipe, trained.network
    if config.weights == RANDOM:
        log.warning("the backbone has random weights, and --mode head does not train it; name some with --weights")
    backbone, head = split(network, config.architecture, trained.preprocessing.input_size)
    half = half_type(config.mixed_precision, device)
    augmentation = Augmentation(trained.preprocessing)
    extraction = Extraction(
        backbone, trained.data_set, trained.identity, augmentation, config.views, recipe.seed, device, threads, half
    )
    views = compute(extraction, FeatureStore(config.feature_cache), workers, should_stop)
    if views is None:
        if should_stop():
            log.info("the features so far are in %s; the same command goes on from there", config.feature_cache)
        return NOTHING, {}, recipe
    log.info("features of %d values, ready after %.1f s", views.valid.values.shape[1], time.perf_counter() - started)

    def keep_best_head(outcome: Fit, weights: Callable[[], Mapping[str, Any]]) -> None:
        keep_best(outcome, lambda: _with_head(network, head, weights()))

    if not config.search:
        fit = fit_head(
            head, views, recipe=recipe, should_stop=should_stop, on_epoch=print_epoch, keep_best=keep_best_head
        )
        return fit, views.skipped, recipe
    started = time.perf_counter()
    found = search(
        head,
        views,
        recipe=recipe,
        space=Space(config.search_lr, config.search_batch_sizes),
        trials=config.search,
        should_stop=should_stop,
        on_trial=lambda trial: print_metrics(trial.line()),
        keep_best=keep_best_head,
    )
    if found is None:
        return NOTHING, views.skipped, recipe
    seconds = time.perf_counter() - started
    write_search(config.output_data_dir, found, seconds=seconds, seed=recipe.seed)
    log.info("%d trials in %.1f s; the best: %s", len(found.trials), seconds, found.best.line())
    for epoch in found.fit.history:
        print_epoch(epoch)
    return found.fit, views.skipped, found.recipe


def _with_head(network: nn.Module, head: nn.Module, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's weights with others in its head, which stays as it is."""
    current = copy.deepcopy(head.state_dict())
    head.load_state_dict(weights)
    whole = copy.deepcopy(network.state_dict())
    head.load_state_dict(current)
    return whole
