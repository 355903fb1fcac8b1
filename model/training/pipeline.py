"""From the arguments to the artifact: the steps of one training."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import logging
import time

import torch

from ..core.memory import keep_freed_memory
from ..core.network import build, check_input_size
from ..core.transforms import Preprocessing
from .arguments import ArgumentsError
from .artifact.best_so_far import BestSoFar, best_writer
from .artifact.finishing import Trained, finish
from .data.augment import Augmentation
from .data.dataset import Fingerprint, decode_for_augmentation, decode_for_serving, discover, fingerprint
from .distributed.group import ALONE, DistributedError, Workers
from .head.mode import train_head
from .loop.checkpoints import Checkpoints
from .loop.engine import Execution, Fit, KeepBest, Recipe, fit
from .loop.metrics import best_line, workers_line
from .loop.mixed_precision import half_type
from .loop.stopping import Stop
from .weights import default_input_size, local_weights

log = logging.getLogger(__name__)

# The shorter side is resized to this much more than the input before the centre is cut: 72 for 64, 252 for 224, nearly
# as for the published networks (256 for 224).
RESIZE_MARGIN = 1.125


def train(arguments: argparse.Namespace, stop: Stop, workers: Workers = ALONE) -> None:
    """Train a network, write the artifact of its best epoch, and measure the artifact on the test split.

    Parameters
    ----------
    arguments : argparse.Namespace
        From `parse_arguments`.
    stop : Stop
        Asked after every step. The training then ends with the best weights so far, or without a model when not even
        one epoch is finished.
    workers : Workers
        Who train together; each calls this function. Only the main one prints metrics and writes files.

    Raises
    ------
    ArgumentsError, DataSetError, NetworkError, DivergedError, DistributedError, CheckpointError, ExportError,
    ArtifactError, OSError
        With a message for a person.
    """
    started = time.perf_counter()
    device = _device(arguments.num_gpus, workers)
    if arguments.sync_batch_norm == "on" and device.type == "cpu":
        raise ArgumentsError("--sync-batch-norm on needs GPUs, and this training runs on CPUs; leave it out")
    if device.type == "cpu":
        keep_freed_memory()
    threads = max(1, arguments.num_cpus // workers.local_size)
    torch.set_num_threads(threads)
    torch.manual_seed(arguments.seed)
    if arguments.input_size is None:
        arguments.input_size = default_input_size(arguments.weights, arguments.architecture)
    preprocessing = Preprocessing(arguments.input_size, round(arguments.input_size * RESIZE_MARGIN))

    data_set = discover(arguments.data_dir)
    identity = fingerprint(data_set)
    log.info("%d classes, %s pictures, %s", len(data_set.labels), data_set.counts, identity.digest)
    _check_same(identity.digest, workers)
    with local_weights(arguments.weights, arguments.architecture) as weights:
        network = build(arguments.architecture, len(data_set.labels), weights=weights)
    check_input_size(network, arguments.architecture, arguments.input_size)
    if arguments.sync_batch_norm == "on":
        network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    valid = decode_for_serving(data_set, "valid", preprocessing, threads)

    def keeper(skipped: dict[str, str]) -> KeepBest:
        if not workers.is_main:
            return lambda outcome, weights: None
        nothing = Fit(history=[], best_epoch=0, best=None, interrupted=True)
        unfinished = Trained(copy.deepcopy(network), nothing, data_set, identity, preprocessing, valid, skipped)
        return BestSoFar(best_writer(arguments, unfinished, started=started))

    augmentation = Augmentation(preprocessing)
    on_epoch = (lambda epoch: _print_metrics(epoch.line())) if workers.is_main else (lambda _: None)
    if arguments.mode == "head":
        outcome, skipped = train_head(
            arguments,
            network,
            data_set=data_set,
            identity=identity,
            augmentation=augmentation,
            recipe=_recipe(arguments, ALONE),  # only the features are shared out, not the head's training
            device=device,
            threads=threads,
            workers=workers,
            should_stop=stop.training,
            on_epoch=on_epoch,
            keep_best=keeper({}),
        )
    else:
        pictures = decode_for_augmentation(data_set, "train", preprocessing, threads)
        log.info("decoded %d + %d pictures in %.1f s", len(pictures), len(valid), time.perf_counter() - started)
        skipped = pictures.skipped
        _check_same(sorted(skipped | valid.skipped), workers)
        outcome = fit(
            network,
            pictures,
            valid,
            recipe=_recipe(arguments, workers),
            augmentation=augmentation,
            device=device,
            should_stop=stop.training,
            on_epoch=on_epoch,
            keep_best=keeper(skipped),
            execution=Execution(
                workers=workers,
                checkpoints=_checkpoints(arguments, identity, workers),
                half=half_type(arguments.mixed_precision, device),
                compile=arguments.compile == "on",
            ),
        )
    if not workers.is_main:
        return
    if outcome.best is None:
        log.error("stopped before the first epoch was finished: there is no model")
        return
    _print_metrics(best_line(outcome.best_epoch, outcome.best))
    if outcome.efficiency is not None:
        _print_metrics(workers_line(outcome.workers, outcome.images_per_second, outcome.efficiency))
    finish(
        arguments,
        Trained(network, outcome, data_set, identity, preprocessing, valid, skipped),
        started=started,
        should_stop=stop,
    )


def _recipe(arguments: argparse.Namespace, workers: Workers) -> Recipe:
    recipe = Recipe(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Recipe)})
    if arguments.scale_with_workers == "off":
        return recipe
    # Goyal et al. 2017: with k times the pictures per step there are k times fewer steps, each k times as long.
    return dataclasses.replace(recipe, batch_size=recipe.batch_size * workers.size, lr=recipe.lr * workers.size)


def _checkpoints(arguments: argparse.Namespace, identity: Fingerprint, workers: Workers) -> Checkpoints | None:
    if arguments.checkpoint_dir is None:
        return None
    recipe = dataclasses.asdict(_recipe(arguments, workers))
    asked = {"architecture": arguments.architecture, "input_size": arguments.input_size, **recipe}
    return Checkpoints(
        arguments.checkpoint_dir,
        asked | {"weights": arguments.weights, "data": identity.digest},
        workers=workers,
        every=60 * arguments.checkpoint_minutes,
        keep=arguments.checkpoint_keep,
    )


def _check_same(pictures: object, workers: Workers) -> None:
    """Refuse to go on when the workers have different pictures: their parts would be of different batches."""
    if any(others != pictures for others in workers.all_gather(pictures)):
        raise DistributedError(
            "the hosts do not have the same pictures, or one of them cannot read some; each needs the whole data set "
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


def _print_metrics(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the log is how SageMaker reads metrics
