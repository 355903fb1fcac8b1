"""From the configuration to the artifact: the steps of one training."""

from __future__ import annotations

import copy
import dataclasses
import logging
import time

import torch
from torch import nn

from ..core.memory import keep_freed_memory
from ..core.network import build, check_input_size
from ..core.transforms import Preprocessing
from .arguments import ArgumentsError
from .artifact.best_so_far import BestSoFar, best_writer
from .artifact.finishing import Trained, finish
from .config import Recipe, TrainingConfig
from .data.augment import Augmentation
from .data.dataset import Fingerprint, discover, fingerprint
from .data.decoded import decode_for_augmentation, decode_for_serving
from .distributed.group import ALONE, DistributedError, Workers
from .head.mode import train_head
from .loop.checkpoints import Checkpoints
from .loop.engine import Execution, fit, half_type
from .loop.metrics import best_line, print_epoch, print_metrics
from .loop.state import KeepBest
from .loop.stopping import Stop
from .weights import default_input_size, local_weights

log = logging.getLogger(__name__)

# The shorter side is resized to this much more than the input before the centre is cut: 72 for 64, 252 for 224, nearly
# as for the published networks (256 for 224).
RESIZE_MARGIN = 1.125


def train(config: TrainingConfig, stop: Stop, workers: Workers = ALONE) -> None:
    """Train a network, write the artifact of its best epoch, and measure the artifact on the test split.

    Each of the workers that train together calls this; only the main one prints metrics and writes files. `stop` is
    asked after every step. The training then ends with the best weights so far, or without a model when not even one
    epoch is finished. All errors that `model.train` names have a message for a person.
    """
    started = time.perf_counter()
    device = _device(config.num_gpus, workers)
    if config.sync_batch_norm == "on" and device.type == "cpu":
        raise ArgumentsError("--sync-batch-norm on needs GPUs, and this training runs on CPUs; leave it out")
    if device.type == "cpu":
        keep_freed_memory()
    threads = max(1, config.num_cpus // workers.local_size)
    torch.set_num_threads(threads)
    torch.manual_seed(config.recipe.seed)

    input_size = config.input_size or default_input_size(config.weights, config.architecture)
    config = dataclasses.replace(config, input_size=input_size)
    preprocessing = Preprocessing(input_size, round(input_size * RESIZE_MARGIN))
    data_set = discover(config.data_dir)
    identity = fingerprint(data_set)
    log.info("%d classes, %s images, %s", len(data_set.labels), data_set.counts, identity.digest)
    _check_same(identity.digest, workers)
    network = _build(config, len(data_set.labels), input_size)
    valid = decode_for_serving(data_set, "valid", preprocessing, threads)
    trained = Trained(network, data_set, identity, preprocessing, valid)
    if config.mode == "head":
        outcome, skipped, recipe = train_head(
            config,
            trained,
            device=device,
            threads=threads,
            workers=workers,
            should_stop=stop.training,
            keep_best=_keeper(config, trained, workers, started),
        )
        config = dataclasses.replace(config, recipe=recipe)  # what a search has found
    else:
        images = decode_for_augmentation(data_set, "train", preprocessing, threads)
        log.info("decoded %d + %d images in %.1f s", len(images), len(valid), time.perf_counter() - started)
        skipped = images.skipped
        _check_same(sorted(skipped | valid.skipped), workers)
        recipe = config.recipe
        if config.scale_with_workers == "on":
            # Goyal et al. 2017: with k times the images per step there are k times fewer steps, each k times as long.
            recipe = dataclasses.replace(
                recipe, batch_size=recipe.batch_size * workers.size, lr=recipe.lr * workers.size
            )
        outcome = fit(
            network,
            images,
            valid,
            recipe=recipe,
            augmentation=Augmentation(preprocessing),
            device=device,
            should_stop=stop.training,
            on_epoch=print_epoch if workers.is_main else lambda _: None,
            keep_best=_keeper(config, dataclasses.replace(trained, skipped=skipped), workers, started),
            execution=Execution(
                workers=workers,
                checkpoints=_checkpoints(config, recipe, identity, workers),
                half=half_type(config.mixed_precision, device),
                compile=config.compile == "on",
            ),
        )
    if not workers.is_main:
        return
    if outcome.best is None:
        log.error("stopped before the first epoch was finished: there is no model")
        return
    print_metrics(best_line(outcome.best_epoch, outcome.best))
    if outcome.workers > 1:
        print_metrics(f"workers={outcome.workers} images_per_second={outcome.images_per_second:.1f}")
    trained = dataclasses.replace(trained, outcome=outcome, skipped=skipped)
    finish(config, trained, started=started, should_stop=stop)


def _build(config: TrainingConfig, classes: int, input_size: int) -> nn.Module:
    with local_weights(config.weights, config.architecture) as weights:
        network = build(config.architecture, classes, weights=weights)
    check_input_size(network, config.architecture, input_size)
    if config.sync_batch_norm == "on":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network


def _keeper(config: TrainingConfig, unfinished: Trained, workers: Workers, started: float) -> KeepBest:
    if not workers.is_main:
        return lambda outcome, weights: None
    unfinished = dataclasses.replace(unfinished, network=copy.deepcopy(unfinished.network))
    return BestSoFar(best_writer(config, unfinished, started=started))


def _checkpoints(config: TrainingConfig, recipe: Recipe, identity: Fingerprint, workers: Workers) -> Checkpoints | None:
    if config.checkpoint_dir is None:
        return None
    asked = {"architecture": config.architecture, "input_size": config.input_size, **dataclasses.asdict(recipe)}
    return Checkpoints(
        config.checkpoint_dir,
        asked | {"weights": config.weights, "data": identity.digest},
        workers=workers,
        every=60 * config.checkpoint_minutes,
        keep=config.checkpoint_keep,
    )


def _check_same(images: object, workers: Workers) -> None:
    """Refuse to go on when the workers have different images: their parts would be of different batches."""
    if any(others != images for others in workers.all_gather(images)):
        raise DistributedError(
            "the hosts do not have the same images, or one of them cannot read some; each needs the whole data set "
            "(S3DataDistributionType FullyReplicated)"
        )


def _device(gpus: int | None, workers: Workers) -> torch.device:
    found = torch.cuda.device_count()
    if gpus is None:
        gpus = found
    if gpus > found:
        raise ArgumentsError(f"--num-gpus (SM_NUM_GPUS) is {gpus}, but torch finds {found} here; use at most that many")
    if gpus > workers.local_size:
        log.warning("%d GPUs: only %d used, one for each process", gpus, workers.local_size)
    return torch.device("cuda", workers.local_rank) if gpus else torch.device("cpu")
