"""`--mode head`: the backbone frozen, its features computed once, and the head trained on them, perhaps many times."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable

import torch

from ..artifact.best_so_far import BestSoFar
from ..artifact.changes import Limits
from ..artifact.finishing import Trained
from ..config import TrainingConfig
from ..data.augment import Augmentation
from ..defaults import RANDOM
from ..distributed.group import Workers
from ..loop.engine import half_type
from ..loop.metrics import metrics_line, print_epoch, print_metrics
from .backbone import split
from .extraction import Extraction
from .feature_store import FeatureStore
from .features import compute
from .head import fit_head, search, write_search
from .served import choose_features

log = logging.getLogger(__name__)


def train_head(
    config: TrainingConfig,
    trained: Trained,
    *,
    device: torch.device,
    workers: Workers,
    should_stop: Callable[[], bool],
    started: float,
) -> tuple[TrainingConfig, Trained]:
    """Train the last layer of a network on the CPU, in place, and nothing else of it.

    All workers compute features; the main one then trains the head and prints the epochs, after a search those of the
    best trial. Returns the configuration, perhaps with what the search found, and what the main worker has reached.
    """
    recipe, network, threads = config.recipe, trained.network, torch.get_num_threads()
    if config.weights == RANDOM:
        log.warning("the backbone has random weights, and --mode head does not train it; name some with --weights")
    backbone, head = split(network, config.architecture, trained.preprocessing.input_size)
    half = half_type(config.mixed_precision, device, workers)
    augmentation = Augmentation.of(trained.preprocessing, recipe)
    extraction = Extraction(
        backbone, trained.data_set, trained.identity, augmentation, config.views, recipe.seed, device, threads, half
    )
    began = time.perf_counter()
    store, int8 = FeatureStore(config.feature_cache), None
    if config.precision == "auto" and device.type == "cpu":
        limits = Limits(config.int8_max_accuracy_loss, config.int8_min_agreement)
        extraction, int8 = choose_features(extraction, head, limits, store, workers, should_stop)
    views = compute(extraction, store, workers, should_stop)
    if views is None:
        if should_stop():
            log.info("the features so far are in %s; the same command goes on from there", config.feature_cache)
        return config, trained
    log.info("features of %d values, ready after %.1f s", views.valid.values.shape[1], time.perf_counter() - began)
    trained = dataclasses.replace(trained, skipped=views.skipped, int8=int8)
    tell = functools.partial(print_epoch, epochs=recipe.epochs)
    keep_best = BestSoFar(config, trained, head, started=started)
    if not config.search:
        outcome = fit_head(head, views, recipe=recipe, should_stop=should_stop, on_epoch=tell, keep_best=keep_best)
        return config, dataclasses.replace(trained, outcome=outcome)
    began = time.perf_counter()
    found = search(
        head,
        views,
        recipe=recipe,
        lr=config.search_lr,
        batch_sizes=config.search_batch_sizes,
        trials=config.search,
        should_stop=should_stop,
        on_trial=lambda trial: print_metrics(**trial.values()),
        keep_best=keep_best,
    )
    if found is None:
        return config, trained
    seconds = time.perf_counter() - began
    write_search(config.output_data_dir, found, seconds=seconds)
    log.info("%d trials in %.1f s; the best: %s", len(found.trials), seconds, metrics_line(**found.best.values()))
    for epoch in found.fit.history:
        tell(epoch)
    return dataclasses.replace(config, recipe=found.recipe), dataclasses.replace(trained, outcome=found.fit)
