# ruff: noqa: RUF009 - option() makes a dataclasses.field
"""The configuration of a training: every argument once, with its type, its default, its limits and its help.

`arguments.py` makes the command line of it. Standard library only, because `kennel` reads it without numpy and torch.
docs/measurements/training.md has the figures behind the defaults.
"""

from __future__ import annotations

import dataclasses
import json
import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..core.machine import available_vcpus
from .defaults import HEAD, RANDOM, RESNET9


def option(
    group: str, default: Any, help: str, *, variables: tuple[str, ...] = (), by_family: bool = False, **argument: Any
) -> Any:
    """Return a dataclass field that the command line sets, under the heading `group` of `--help`.

    A default that is a text is read by the argument's `type`; None means that there is none. The first of the
    environment `variables` that is there sets it. `argument` is what `add_argument` takes besides. An option
    `by_family` has its default from the table in `defaults.py`, on the command line; `default` is that of `resnet9`.
    """
    if variables:
        help += f"; {variables[0]}"
    value = argument.get("type", str)(default) if isinstance(default, str) else default
    given = None if by_family else default
    return dataclasses.field(
        default=dataclasses.MISSING if default is None else value,
        metadata={"group": group, "variables": variables, "argument": {"default": given, "help": help, **argument}},
    )


def _number(kind: Callable[[str], float], what: str, lowest: float, highest: float) -> Callable[[str], Any]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:
            raise ArgumentTypeError(f"{text!r} is not {what} from {lowest} to {highest}")
        return value

    return parse


integer = partial(_number, int, "a whole number")
real = partial(_number, float, "a number")


def integers(lowest: int, highest: int) -> Callable[[str], tuple[int, ...]]:
    """Return what reads whole numbers, such as "64,8", into their sorted set."""
    return lambda text: tuple(sorted({integer(lowest, highest)(part) for part in text.split(",")}))


def interval(lowest: float, highest: float) -> Callable[[str], tuple[float, float]]:
    """Return what reads a lower and a higher number, such as "0.001,0.1"."""

    def parse(text: str) -> tuple[float, float]:
        low, high = (real(lowest, highest)(part) for part in text.partition(",")[::2])
        if low >= high:
            raise ArgumentTypeError(f"{text!r} is not a lower and a higher number such as 0.001,0.1")
        return low, high

    return parse


def names(text: str) -> tuple[str, ...]:
    """Read a JSON list of names."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
        raise ArgumentTypeError(f'{text!r} is not a JSON list of names such as ["algo-1"]')
    return tuple(found)


CLASS_WEIGHTS = ("none", "balanced", "sampler")
SELECTIONS = ("loss", "accuracy", "macro-f1")
MIXED_PRECISION = ("auto", "on", "off")
AUGMENT = ("standard", "trivial", "none")
_SWITCH = ("on", "off")

# Batch normalisation over a single image of 1 x 1 is impossible, and mixing needs a neighbour.
SMALLEST_SHARE = 2

_PLAIN = "hyperparameters"
_FINE_TUNING = "hyperparameters for fine-tuning and large networks"
_AUGMENTATION = "augmentation of the training images"
_HEAD = "training of the head alone"
_PLACES = "places"
_MACHINE = "machine"
_SEVERAL = "several processes and hosts"
_CHECKPOINTS = "checkpoints"
_PROVENANCE = "provenance, recorded in the artifact"


@dataclass(frozen=True)
class Recipe:
    """How to train: what the loop does with a network and its data. The fields' own texts say what they mean."""

    epochs: int = option(_PLAIN, 40, "at most so many", type=integer(1, 10_000))
    batch_size: int = option(_PLAIN, 64, "images per step, on all workers together", type=integer(2, 65_536))
    lr: float = option(
        _PLAIN, RESNET9.lr, "peak learning rate; without it by network family: see below",
        type=real(1e-8, 10), by_family=True,
    )  # fmt: skip
    weight_decay: float = option(
        _PLAIN, RESNET9.weight_decay, "AdamW's, for matrices and kernels; without it by network family: see below",
        type=real(0, 10), by_family=True,
    )  # fmt: skip
    label_smoothing: float = option(_PLAIN, 0.1, "share given to all classes alike", type=real(0, 0.9))
    select: str = option(
        _PLAIN, "loss", "metric of the validation split that the best epoch, --patience and --search go by",
        choices=SELECTIONS,
    )  # fmt: skip
    patience: int = option(
        _PLAIN, 0,
        "stop after this many epochs without a better one, of those with at most half the peak learning rate; 0: never",
        type=integer(0, 10_000),
    )  # fmt: skip
    seed: int = option(_PLAIN, 0, "of all that is random", type=integer(0, 2**63 - 1))
    train_stages: int = option(
        _FINE_TUNING, 0, "number of last stages to train, including the classifier; 0: all", type=integer(0, 1000)
    )
    lr_decay: float = option(
        _FINE_TUNING, 1.0, "learning rate of a stage over that of the next one toward the output", type=real(0.01, 1)
    )
    mixup: float = option(_FINE_TUNING, 0.0, "alpha of mixup; 0: off, 0.2 is usual", type=real(0, 10))
    cutmix: float = option(_FINE_TUNING, 0.0, "alpha of CutMix; 0: off, 1 is usual", type=real(0, 10))
    ema: float = option(
        _FINE_TUNING, 0.0, "decay per step of the weights' moving average, which is kept; 0: off", type=real(0, 0.99999)
    )
    clip_gradient: float = option(
        _FINE_TUNING, 0.0, "highest norm of all gradients together; 0: off, 1 is usual", type=real(0, 1e6)
    )
    class_weights: str = option(
        _FINE_TUNING, "none",
        "for imbalanced classes: balanced weighs the losses, sampler shows every class equally often",
        choices=CLASS_WEIGHTS,
    )  # fmt: skip
    augment: str = option(
        _AUGMENTATION, "standard",
        "standard: crop, mirror, turn and recolour; trivial: crop, mirror and TrivialAugmentWide; none: as served",
        choices=AUGMENT,
    )  # fmt: skip
    mirror: str = option(
        _AUGMENTATION, "on", "swap left and right of half the images; off for signs, text, X-rays", choices=_SWITCH
    )
    crop_scale: float = option(
        _AUGMENTATION, 0.5, "least share of an image's area that a crop shows", type=real(0.01, 1)
    )
    rotation: float = option(_AUGMENTATION, 5.0, "at most so many degrees either way; 0: off", type=real(0, 180))
    color: float = option(
        _AUGMENTATION, 1.0, "strength of the changes of brightness, contrast, saturation and colour of light; 0: off",
        type=real(0, 5),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """All that one training is told, as the command line and the environment have it."""

    architecture: str = option(_PLAIN, "resnet9", "resnet9, or a torchvision network")
    weights: str = option(
        _PLAIN, RANDOM,
        "what to start from: a state dictionary's path or s3://BUCKET/KEY, default: torchvision's published weights, "
        "none: random ones",
    )  # fmt: skip
    input_size: int | None = option(
        _PLAIN, None,
        "side of the network's input, pixels; without it what the network is made for: 64 for resnet9, 224 for most",
        type=integer(16, 1024),
    )  # fmt: skip
    recipe: Recipe = Recipe()
    precision: str = option(
        _PLAIN, "auto",
        "of the graph that is served; auto: int8 where it is faster and within the two limits below; "
        "with --mode head on a CPU its features are int8, too, where they are as good",
        choices=("auto", "fp32"),
    )  # fmt: skip
    int8_max_accuracy_loss: float = option(
        # One point, as in MLPerf Inference, whose quality target is 99% of float32's accuracy (Reddi et al. 2020).
        _PLAIN, 0.01, "accuracy that int8 is shown to lose at most; 0.01 is one point", type=real(0.0001, 1)
    )  # fmt: skip
    int8_min_agreement: float = option(
        _PLAIN, 0.98, "share of the images that int8 is shown to classify as fp32 does", type=real(0, 0.9999)
    )

    mode: str = option(
        _HEAD, "finetune",
        "finetune: train the network; head: compute the features of every image once and train the last layer",
        choices=("finetune", "head"),
    )  # fmt: skip
    views: int = option(_HEAD, 1, "of every training image: the plain one, and augmented ones", type=integer(1, 1000))
    feature_cache: Path = option(
        _HEAD, None, "where features are kept; without it features in --checkpoint-dir, or in build", type=Path
    )
    search: int = option(
        _HEAD, 0, "try so many values of --lr and --batch-size, and keep the best; 0: train once",
        type=integer(0, 10_000), metavar="TRIALS",
    )  # fmt: skip
    search_lr: tuple[float, float] = option(
        _HEAD, "{},{}".format(*HEAD.search_lr), "learning rates to search", type=interval(1e-8, 10), metavar="LOW,HIGH"
    )
    search_batch_sizes: tuple[int, ...] = option(
        _HEAD, "32,64,128,256,512", "batch sizes to choose from", type=integers(2, 65_536), metavar="SIZE,…"
    )

    data_dir: Path = option(
        _PLACES, None, "folder with train/, valid/ and perhaps test/", type=Path, variables=("SM_CHANNEL_TRAINING",)
    )
    model_dir: Path = option(
        _PLACES, "build/model", "where the model artifact is written", type=Path, variables=("SM_MODEL_DIR",)
    )
    output_data_dir: Path = option(
        _PLACES, "build/output", "where metrics.json is written", type=Path, variables=("SM_OUTPUT_DATA_DIR",)
    )

    num_cpus: int = option(
        _MACHINE, available_vcpus(), "threads for decoding and computing",
        type=integer(1, 4096), variables=("SM_NUM_CPUS",),
    )  # fmt: skip
    num_gpus: int | None = option(
        _MACHINE, None, "0: compute on the CPU; without it the GPU is used if there is one",
        type=integer(0, 64), variables=("SM_NUM_GPUS",),
    )  # fmt: skip
    mixed_precision: str = option(
        _MACHINE, "auto", "compute in 16 bits where that does no harm; auto: on GPUs, on: also on CPUs with bfloat16",
        choices=MIXED_PRECISION,
    )  # fmt: skip
    max_runtime: float | None = option(
        _MACHINE, None, "it ends early enough for its model to be finished within this time; without it: never",
        type=real(1, 1e9), metavar="SECONDS",
    )  # fmt: skip
    accumulate: int = option(
        _MACHINE, 1, "a worker's part of a batch goes through the network in so many pieces, which takes less memory",
        type=integer(1, 65_536),
    )  # fmt: skip
    compile: str = option(
        _MACHINE, "off", "compile the training step: a minute, which pays for long trainings", choices=_SWITCH
    )

    hosts: tuple[str, ...] = option(
        _SEVERAL, '["localhost"]', "JSON list of the machines that train together", type=names, variables=("SM_HOSTS",)
    )
    current_host: str = option(_SEVERAL, None, "this machine's name", variables=("SM_CURRENT_HOST",))
    processes_per_host: int | None = option(
        _SEVERAL, None, "workers on each host; without it one for each GPU, or one", type=integer(1, 64)
    )
    sync_batch_norm: str = option(
        _SEVERAL, "off", "batch normalisation by the statistics of all workers' images, on GPUs", choices=_SWITCH
    )
    master_addr: str = option(
        _SEVERAL, None, "where the hosts meet; without it the first host", variables=("SM_MASTER_ADDR", "MASTER_ADDR")
    )
    master_port: int = option(
        _SEVERAL, 7777, "its port", type=integer(1, 65_535), variables=("SM_MASTER_PORT", "MASTER_PORT")
    )

    checkpoint_dir: Path | None = option(
        _CHECKPOINTS, None, "where a killed training finds its state; default /opt/ml/checkpoints, where that exists",
        type=Path, variables=("SM_CHECKPOINT_DIR",),
    )  # fmt: skip
    checkpoint_minutes: float = option(
        _CHECKPOINTS, 5.0, "from one to the next; 0: after every step", type=real(0, 10_000)
    )
    checkpoint_keep: int = option(_CHECKPOINTS, 2, "how many of the newest are kept", type=integer(1, 1000))

    model_name: str | None = option(_PROVENANCE, None, "the model's name; without it the data folder's name")
    job_name: str | None = option(_PROVENANCE, None, "the training job's name", variables=("TRAINING_JOB_NAME",))
    code_revision: str | None = option(_PROVENANCE, None, "the revision of this program's source")

    def recorded(self) -> dict[str, Any]:
        """Return every argument by its name, as JSON can hold it."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values = dataclasses.asdict(fields.pop("recipe")) | fields
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
