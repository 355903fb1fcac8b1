"""From the arguments to the artifact: the steps of one training."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import time

import torch

from ..metrics import EpochMetrics
from ..network import build, check_input_size
from ..transforms import Preprocessing
from .augment import Augmentation
from .data import DataSet, Pictures, decode_for_serving, discover, fingerprint, load, whole_picture
from .engine import Recipe, fit
from .finishing import Trained, finish
from .stopping import Stop

log = logging.getLogger(__name__)

# The decoded training pictures are this much larger than the network's input, so that a crop of a part of one still
# has as many pixels as the network sees.
CACHE_MARGIN = 1.25
# The shorter side is resized to this much more than the input before the centre is cut: 72 for 64, as 256 for the 224
# of the published networks.
RESIZE_MARGIN = 1.125


def train(arguments: argparse.Namespace, stop: Stop) -> None:
    """Train a network, write the artifact of its best epoch, and measure the artifact on the test split.

    Parameters
    ----------
    arguments : argparse.Namespace
        From `parse_arguments`.
    stop : Stop
        Asked after every step. The training then ends with the best weights so far, or without a model when not even
        one epoch is finished.

    Raises
    ------
    DataSetError, NetworkError, DivergedError, ExportError, ArtifactError, OSError
        With a message for a person.
    """
    started = time.perf_counter()
    torch.set_num_threads(arguments.num_cpus)
    torch.manual_seed(arguments.seed)
    preprocessing = Preprocessing(arguments.input_size, round(arguments.input_size * RESIZE_MARGIN))

    data_set = discover(arguments.data_dir)
    identity = fingerprint(data_set)
    log.info("%d classes, %s pictures, %s", len(data_set.labels), data_set.counts, identity.digest)
    network = build(arguments.architecture, len(data_set.labels), weights=arguments.weights)
    check_input_size(network, arguments.architecture, arguments.input_size)
    pictures, valid = _decode(data_set, preprocessing, arguments.num_cpus)
    log.info("decoded %d + %d pictures in %.1f s", len(pictures), len(valid), time.perf_counter() - started)

    outcome = fit(
        network,
        pictures,
        valid,
        recipe=Recipe(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Recipe)}),
        augmentation=Augmentation(preprocessing),
        device=_device(arguments.num_gpus),
        should_stop=stop,
        on_epoch=_print_epoch,
    )
    if outcome.best is None:
        log.error("stopped before the first epoch was finished: there is no model")
        return
    finish(
        arguments,
        Trained(network, outcome, data_set, identity, preprocessing, valid, pictures.skipped),
        started=started,
        should_stop=stop,
    )


def _device(gpus: int | None) -> torch.device:
    if gpus is None:
        gpus = torch.cuda.device_count()
    if gpus > 1:
        log.warning("%d GPUs: only the first is used", gpus)
    return torch.device("cuda" if gpus else "cpu")


def _decode(data_set: DataSet, preprocessing: Preprocessing, threads: int) -> tuple[Pictures, Pictures]:
    side = round(preprocessing.input_size * CACHE_MARGIN)
    pictures = load(
        data_set,
        "train",
        prepare=lambda image: whole_picture(image, side),
        side=side,
        shorter_side=side,
        threads=threads,
    )
    return pictures, decode_for_serving(data_set, "valid", preprocessing, threads)


def _print_epoch(epoch: EpochMetrics) -> None:
    print(epoch.line(), flush=True)  # noqa: T201 - the log is how SageMaker reads metrics
