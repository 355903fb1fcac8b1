"""From the configuration to the artifact: the steps of one training."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable

import torch
from torch import nn

from ..core.machine import keep_freed_memory
from ..core.network import build, check_input_size
from ..core.transforms import Preprocessing
from .arguments import ArgumentsError
from .artifact.best_so_far import BestSoFar
from .artifact.export import ExportError, try_export
from .artifact.finishing import Trained, finish
from .config import TrainingConfig
from .data.augment import Augmentation
from .data.dataset import discover, fingerprint
from .data.decoded import decode_for_augmentation, decode_for_serving
from .distributed.group import ALONE, DistributedError, Workers, choose_device, usable_gpus
from .head.mode import train_head
from .loop.checkpoints import Checkpoints
from .loop.engine import fit, half_type
from .loop.metrics import print_epoch, print_metrics
from .loop.stopping import Stop
from .weights import local_weights, preprocessing_for

log = logging.getLogger(__name__)


def train(config: TrainingConfig, stop: Stop, workers: Workers = ALONE) -> None:
    """Train a network, write the artifact of its best epoch, and measure the artifact on the test split.

    Each of the workers that train together calls this; only the main one prints metrics and writes files. Stopped, the
    training ends with the best weights so far, or without a model when not even one epoch is finished.
    """
    started = time.perf_counter()
    device = choose_device(config.num_gpus, workers)
    if (gpus := usable_gpus(config.num_gpus)) > workers.local_size:
        log.warning("%d GPUs: only %d used, one for each process", gpus, workers.local_size)
    if config.sync_batch_norm == "on" and device.type == "cpu":
        raise ArgumentsError("--sync-batch-norm on needs GPUs, and this training runs on CPUs; leave it out")
    if device.type == "cpu":
        keep_freed_memory()
    else:
        torch.backends.cudnn.benchmark = True  # the shapes stay the same, so the fastest algorithm is worth a search
    torch.set_num_threads(max(1, config.num_cpus // workers.local_size))
    torch.manual_seed(config.recipe.seed)

    data_set = discover(config.data_dir)
    identity = fingerprint(data_set)
    log.info("%d classes, %s images, %s", len(data_set.labels), data_set.counts, identity.digest)
    _check_same(identity.digest, workers)
    network, preprocessing = _build(config, len(data_set.labels))
    config = dataclasses.replace(config, input_size=preprocessing.input_size)
    _check_export(network, config.architecture, preprocessing.input_size, workers)
    valid = decode_for_serving(data_set.splits["valid"], preprocessing, torch.get_num_threads(), workers)
    data_set.splits["valid"].refuse_unreadable(valid.skipped)
    trained = Trained(network, data_set, identity, preprocessing, valid)
    mode = train_head if config.mode == "head" else _fine_tune
    config, trained = mode(config, trained, device=device, workers=workers, should_stop=stop.training, started=started)
    outcome = trained.outcome
    if not workers.is_main:
        return
    if outcome.best is None:
        log.error("stopped before the first epoch was finished: there is no model")
        return
    if outcome.diverged_epoch:
        log.warning(
            "the training diverged in epoch %d: the model is that of epoch %d; use a learning rate below %g",
            outcome.diverged_epoch, outcome.best_epoch, config.recipe.lr,
        )  # fmt: skip
    # It repeats the epoch's validation, because a tuning job compares the last value that a training job gave.
    best = outcome.best
    print_metrics(
        best_epoch=outcome.best_epoch, select=config.recipe.select,
        valid_loss=best.loss, valid_accuracy=best.accuracy, valid_macro_f1=best.macro_f1,
    )  # fmt: skip
    if outcome.workers > 1:
        print_metrics(workers=outcome.workers, images_per_second=outcome.images_per_second)
    finish(config, trained, started=started, should_stop=stop)


def _fine_tune(
    config: TrainingConfig,
    trained: Trained,
    *,
    device: torch.device,
    workers: Workers,
    should_stop: Callable[[], bool],
    started: float,
) -> tuple[TrainingConfig, Trained]:
    """Train a network, in place; return what has been reached. The arguments are those of `train_head`."""
    split = trained.data_set.splits["train"]
    decode = decode_for_serving if config.recipe.augment == "none" else decode_for_augmentation
    images = decode(split, trained.preprocessing, torch.get_num_threads(), workers)
    split.refuse_unreadable(images.skipped)
    log.info("decoded %d + %d images in %.1f s", len(images), len(trained.valid), time.perf_counter() - started)
    _check_same(sorted(images.skipped | trained.valid.skipped), workers)
    trained = dataclasses.replace(trained, skipped=images.skipped)
    network = trained.network
    outcome = fit(
        network,
        images,
        trained.valid,
        recipe=config.recipe,
        augmentation=Augmentation.of(trained.preprocessing, config.recipe),
        device=device,
        should_stop=should_stop,
        on_epoch=functools.partial(print_epoch, epochs=config.recipe.epochs) if workers.is_main else lambda _: None,
        keep_best=BestSoFar(config, trained, network, started=started) if workers.is_main else lambda _: None,
        workers=workers,
        checkpoints=_checkpoints(config, trained, workers),
        half=half_type(config.mixed_precision, device, workers),
        accumulate=config.accumulate,
        compiled=config.compile == "on",
    )
    return config, dataclasses.replace(trained, outcome=outcome)


def _build(config: TrainingConfig, classes: int) -> tuple[nn.Module, Preprocessing]:
    with local_weights(config.weights, config.architecture) as weights:
        preprocessing = preprocessing_for(config.architecture, weights, config.input_size)
        network = build(config.architecture, classes, weights=weights, input_size=preprocessing.input_size)
    check_input_size(network, config.architecture, preprocessing.input_size)
    if config.sync_batch_norm == "on":  # in evaluation it computes as before, on CPUs, too
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network, preprocessing


def _check_export(network: nn.Module, architecture: str, input_size: int, workers: Workers) -> None:
    """Raise ExportError on every worker if the network cannot be exported, before the images are decoded."""
    failure = None
    if workers.is_main:
        try:
            try_export(network, architecture, input_size)
        except ExportError as error:
            failure = str(error)
    if (failure := workers.broadcast(failure)) is not None:
        raise ExportError(failure)


def _checkpoints(config: TrainingConfig, trained: Trained, workers: Workers) -> Checkpoints | None:
    if config.checkpoint_dir is None:
        return None
    asked = {"architecture": config.architecture} | dataclasses.asdict(trained.preprocessing)
    asked |= dataclasses.asdict(config.recipe) | {"weights": config.weights, "data": trained.identity.digest}
    every = 60 * config.checkpoint_minutes
    return Checkpoints(config.checkpoint_dir, asked, workers=workers, every=every, keep=config.checkpoint_keep)


def _check_same(images: object, workers: Workers) -> None:
    """Refuse to go on when the workers have different images: their parts would be of different batches."""
    if any(others != images for others in workers.all_gather(images)):
        raise DistributedError(
            "the hosts do not have the same images, or one of them cannot read some; each needs the whole data set "
            "(S3DataDistributionType FullyReplicated)"
        )
