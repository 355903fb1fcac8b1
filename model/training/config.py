# ruff: noqa: RUF009 - option() makes a dataclasses.field
"""The configuration of a training: every argument once, with its type, its default, its limits and its help.

`arguments.py` makes the command line of it. Standard library only, because `kennel` reads it without numpy and torch.
docs/measurements/training.md has the figures behind the defaults.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.machine import available_vcpus
from .option import integer, integers, interval, names, option, real

CLASS_WEIGHTS = ("none", "balanced", "sampler")
MIXED_PRECISION = ("auto", "on", "off")

_PLAIN = "hyperparameters"
_FINE_TUNING = "hyperparameters for fine-tuning and large networks"
_HEAD = "training of the head alone"
_PLACES = "places"
_MACHINE = "machine"
_SEVERAL = "several processes and hosts"
_CHECKPOINTS = "checkpoints"
_PROVENANCE = "provenance, recorded in the artifact"


@dataclass(frozen=True)
class Recipe:
    """How to train: what the loop does with a network and its data. The fields' own texts say what they mean.

    Losses are cross-entropies in nats. `lr` is reached after `state.WARM_UP` of the steps; `train_stages` counts the
    stages of `optimization.stages`; `mixup` and `cutmix` are what `mixing.draw_mixture` takes.
    """

    epochs: int = option(_PLAIN, 40, "at most so many", type=integer(1, 10_000))
    batch_size: int = option(_PLAIN, 64, "pictures per step, on all workers together", type=integer(2, 65_536))
    lr: float = option(_PLAIN, 0.01, "peak learning rate", type=real(1e-8, 10))
    weight_decay: float = option(_PLAIN, 0.1, "AdamW's, not for biases", type=real(0, 10))
    label_smoothing: float = option(_PLAIN, 0.1, "share given to all classes alike", type=real(0, 0.9))
    patience: int = option(
        _PLAIN,
        0,
        "stop when the validation loss has not become lower for this many epochs; 0: never",
        type=integer(0, 10_000),
    )
    seed: int = option(_PLAIN, 0, "of all that is random", type=integer(0, 2**63 - 1))
    train_stages: int = option(
        _FINE_TUNING, 0, "number of last stages to train, including the classifier; 0: all",
        type=integer(0, 1000),
    )  # fmt: skip
    lr_decay: float = option(
        _FINE_TUNING, 1.0, "learning rate of a stage over that of the next one toward the output", type=real(0.01, 1)
    )
    mixup: float = option(_FINE_TUNING, 0.0, "alpha of mixup; 0: off, 0.2 is usual", type=real(0, 10))
    cutmix: float = option(_FINE_TUNING, 0.0, "alpha of CutMix; 0: off, 1 is usual", type=real(0, 10))
    ema: float = option(
        _FINE_TUNING, 0.0, "decay per step of the moving average of the weights, which is then what is kept; 0: off",
        type=real(0, 0.99999),
    )  # fmt: skip
    class_weights: str = option(
        _FINE_TUNING, "none",
        "for imbalanced classes: balanced weighs the losses, sampler shows every class equally often",
        choices=CLASS_WEIGHTS,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """All that one training is told, as the command line and the environment have it."""

    architecture: str = option(_PLAIN, "resnet9", "resnet9, or a torchvision network")
    weights: str = option(
        _PLAIN, "none",
        "what to start from: a state dictionary's path or s3://BUCKET/KEY, default: torchvision's published weights, "
        "none: random ones",
    )  # fmt: skip
    input_size: int | None = option(
        _PLAIN, None,
        "side of the network's input, pixels; without it 64, or with --weights default what those are made for",
        type=integer(16, 1024),
    )  # fmt: skip
    recipe: Recipe = Recipe()
    precision: str = option(
        _PLAIN, "auto", "of the graph that is served; auto: int8 where it is faster and within the two limits below",
        choices=("auto", "fp32"),
    )  # fmt: skip
    int8_max_accuracy_loss: float = option(
        _PLAIN, 0.005, "accuracy that int8 may lose on the validation pictures; 0.005 is half a point",
        type=real(-1, 1),
    )  # fmt: skip
    int8_min_agreement: float = option(
        _PLAIN, 0.985, "share of the validation pictures that int8 must classify as fp32 does", type=real(0, 1)
    )

    mode: str = option(
        _HEAD, "finetune",
        "finetune: train the network; head: compute the features of every picture once and train the last layer",
        choices=("finetune", "head"),
    )  # fmt: skip
    views: int = option(
        _HEAD, 1, "of every training picture: the one that the server would see, and so many less one augmented ones",
        type=integer(1, 1000),
    )  # fmt: skip
    feature_cache: Path = option(
        _HEAD, None,
        "where features are kept; a training that finds its own there does not compute them again; without it the "
        "folder features in --checkpoint-dir, or in build",
        type=Path,
    )  # fmt: skip
    search: int = option(
        _HEAD, 0,
        "try so many values of --lr and --batch-size, and keep the best; 0: train once, with the values given",
        type=integer(0, 10_000), metavar="TRIALS",
    )  # fmt: skip
    search_lr: tuple[float, float] = option(
        _HEAD, "0.001,0.1", "learning rates to search", type=interval(1e-8, 10), metavar="LOW,HIGH"
    )
    search_batch_sizes: tuple[int, ...] = option(
        _HEAD, "32,64,128,256,512", "batch sizes to choose from", type=integers(2, 65_536), metavar="SIZE,…"
    )

    data_dir: Path = option(
        _PLACES, None, "folder with train/, valid/ and perhaps test/; SM_CHANNEL_TRAINING",
        type=Path, variables=("SM_CHANNEL_TRAINING",),
    )  # fmt: skip
    model_dir: Path = option(
        _PLACES, "build/model", "where the model artifact is written; SM_MODEL_DIR",
        type=Path, variables=("SM_MODEL_DIR",),
    )  # fmt: skip
    output_data_dir: Path = option(
        _PLACES, "build/output", "where metrics.json is written; SM_OUTPUT_DATA_DIR",
        type=Path, variables=("SM_OUTPUT_DATA_DIR",),
    )  # fmt: skip

    num_cpus: int = option(
        _MACHINE, available_vcpus(), "threads for decoding and computing; SM_NUM_CPUS",
        type=integer(1, 4096), variables=("SM_NUM_CPUS",),
    )  # fmt: skip
    num_gpus: int | None = option(
        _MACHINE, None, "0: compute on the CPU; without it the GPU is used if there is one; SM_NUM_GPUS",
        type=integer(0, 64), variables=("SM_NUM_GPUS",),
    )  # fmt: skip
    mixed_precision: str = option(
        _MACHINE, "auto",
        "compute in 16 bits where the result allows it; auto: on GPUs, on: also on CPUs with bfloat16",
        choices=MIXED_PRECISION,
    )  # fmt: skip
    max_runtime: float | None = option(
        _MACHINE, None,
        "the training ends early enough for its model to be finished within this time; without it: never",
        type=real(1, 1e9), metavar="SECONDS",
    )  # fmt: skip
    compile: str = option(
        _MACHINE, "off",
        "compile the training step, which takes about a minute and pays for long trainings of large networks",
        choices=("on", "off"),
    )  # fmt: skip

    hosts: tuple[str, ...] = option(
        _SEVERAL, '["localhost"]', "JSON list of the machines that train together; SM_HOSTS",
        type=names, variables=("SM_HOSTS",),
    )  # fmt: skip
    current_host: str = option(_SEVERAL, None, "this machine's name; SM_CURRENT_HOST", variables=("SM_CURRENT_HOST",))
    processes_per_host: int | None = option(
        _SEVERAL, None, "workers on each host; without it one for each GPU, or one", type=integer(1, 64)
    )
    master_addr: str = option(
        _SEVERAL, None, "where the hosts meet; without it the first host's name; SM_MASTER_ADDR",
        variables=("SM_MASTER_ADDR", "MASTER_ADDR"),
    )  # fmt: skip
    master_port: int = option(
        _SEVERAL, 7777, "its port; SM_MASTER_PORT",
        type=integer(1, 65_535), variables=("SM_MASTER_PORT", "MASTER_PORT"),
    )  # fmt: skip
    sync_batch_norm: str = option(
        _SEVERAL, "off", "on: batch normalisation over all workers' images, on GPUs; off: over each worker's share",
        choices=("on", "off"),
    )  # fmt: skip
    scale_with_workers: str = option(
        _SEVERAL, "off", "on: multiply --batch-size and --lr by the number of workers", choices=("on", "off")
    )

    checkpoint_dir: Path | None = option(
        _CHECKPOINTS, None,
        "where a killed training finds what it needs to go on; without it /opt/ml/checkpoints, where that exists",
        type=Path, variables=("SM_CHECKPOINT_DIR",),
    )  # fmt: skip
    checkpoint_minutes: float = option(
        _CHECKPOINTS, 5.0, "from one to the next; 0: after every step", type=real(0, 10_000)
    )
    checkpoint_keep: int = option(_CHECKPOINTS, 2, "how many of the newest are kept", type=integer(1, 1000))

    model_name: str | None = option(_PROVENANCE, None, "the model's name; without it the data folder's name")
    job_name: str | None = option(
        _PROVENANCE, None, "the training job's name; TRAINING_JOB_NAME", variables=("TRAINING_JOB_NAME",)
    )
    code_revision: str | None = option(_PROVENANCE, None, "the revision of this program's source")

    def recorded(self) -> dict[str, Any]:
        """Return every argument by its name, as JSON can hold it."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values = dataclasses.asdict(fields.pop("recipe")) | fields
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
