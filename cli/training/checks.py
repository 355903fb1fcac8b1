"""What is known of a training before it is billed: its hyperparameters, its network, its weights, its data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from cli.aws import Stage
from cli.data.push import data_set_prefix, pushed_images
from cli.errors import NotReadyError, UsageError
from infra.bucket_layout import READABLE_PREFIXES, WEIGHTS
from model.training.arguments import CHECKPOINT_DIR, ArgumentsError, parse_arguments
from model.training.config import SMALLEST_SHARE, TrainingConfig
from model.training.data.image_folder import ImageFile, ImageFolder
from model.training.defaults import RANDOM

_PUBLISHED = "default"  # as in model/training/weights.py, which imports torch


def check_training(stage: Stage, data_set: str, configs: Iterable[Mapping[str, str]], instances: int) -> None:
    """Raise a KennelError for what the training itself would refuse, with any of the hyperparameters in `configs`."""
    read = [_parsed(given) for given in configs]
    for network in {(one.architecture, one.weights, one.input_size, one.recipe.train_stages) for one in read}:
        _require_network(*network)
    for weights in {one.weights for one in read} - {RANDOM, _PUBLISHED}:
        _require_weights(stage, weights)
    _require_data_set(stage, data_set, read, instances)


def _parsed(given: Mapping[str, str]) -> TrainingConfig:
    places = {"data-dir": ".", "checkpoint-dir": CHECKPOINT_DIR}  # a job has them
    try:
        return parse_arguments([f"--{k}={v}" for k, v in {**places, **given}.items()], {}, trains_here=False)
    except ArgumentsError as error:
        raise UsageError(f"The training cannot be started: {error}.") from error


def _require_network(architecture: str, weights: str, input_size: int | None, train_stages: int) -> None:
    """Build the network as the training does, but without its numbers."""
    if (architecture, weights, input_size, train_stages) == ("resnet9", RANDOM, None, 0):
        return
    import torch  # seconds: not needed by the other commands

    from model.core.network import NetworkError, build, check_input_size, made_for, published
    from model.training.loop.state import freeze

    try:
        if weights == _PUBLISHED:
            published(architecture)
        with torch.device("meta"):
            size = input_size or made_for(architecture).input_size
            network = build(architecture, 2, input_size=size)
            check_input_size(network, architecture, size)
            freeze(network, train_stages)
    except NetworkError as error:
        raise UsageError(f"The training cannot be started: {str(error).rstrip('.')}.") from error


def _require_weights(stage: Stage, source: str) -> None:
    """Refuse weights that a job cannot fetch, as far as the caller may look."""
    bucket, _, key = source.removeprefix("s3://").partition("/")
    if not source.startswith(("s3://", "/opt/ml/")):
        problem = f"A job has no file {source!r} to take weights from."
    elif source.startswith("/opt/ml/") or (key and bucket != stage.data_bucket):  # not ours to look into
        return
    elif not key.startswith(tuple(f"{prefix}/" for prefix in READABLE_PREFIXES)):
        problem = f"A job may not read {source}."
    elif not _lists(stage, key):
        problem = f"There is nothing at {source}."
    else:
        return
    place = f"s3://{stage.data_bucket}/{WEIGHTS}/"
    raise UsageError(problem, f"Put the weights into the bucket: aws s3 cp FILE {place}, and name them there.")


def _lists(stage: Stage, prefix: str) -> bool:
    listing = stage.client("s3").list_objects_v2(Bucket=stage.data_bucket, Prefix=prefix, MaxKeys=1)
    return bool(listing.get("Contents"))


def _require_data_set(stage: Stage, name: str, configs: Iterable[TrainingConfig], instances: int) -> None:
    """Refuse a data set that is not in the bucket, or whose manifest says that it will not do for all `configs`."""
    if not _lists(stage, data_set_prefix(name)):
        raise NotReadyError(f"There is no data set {name!r} in the bucket.", "Put one there: kennel data push DIR")
    folder = None
    if places := [place.split("/", 2) for place in pushed_images(stage, name) if place.count("/") > 1]:
        folder = ImageFolder(Path(name), [ImageFile(Path(name, *place), *place) for place in places])
        for problem in folder.problems():
            raise NotReadyError(f"The data set in the bucket: {problem}", "Push it (again): kennel data push DIR")
    for config in configs:
        images, workers = config.recipe.batch_size, instances * (config.processes_per_host or 1)
        if folder is not None:
            images = min(images, folder.counts["train"])
        most = max(1, images // SMALLEST_SHARE)
        if config.mode == "finetune" and workers > most:  # one worker trains the head
            raise UsageError(
                f"Batches of {images} images are for at most {most} workers, and these are {workers}: each needs "
                f"{SMALLEST_SHARE}.",
                "Use a larger batch-size (it counts the images on all instances), or fewer --instances.",
            )
