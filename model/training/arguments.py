"""The training's command line: hyperparameters, and a twin for every variable that SageMaker sets."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from ..serving.settings import available_vcpus

# What SageMaker keeps the same as the job's checkpoint location.
CHECKPOINT_DIR = "/opt/ml/checkpoints"
CLASS_WEIGHTS = ("none", "balanced", "sampler")
MIXED_PRECISION = ("auto", "on", "off")

_CHECKPOINTING = ("checkpoint_minutes", "checkpoint_keep")
# What only one of the two modes looks at. The features are computed by a network in evaluation mode.
_ONLY_FINETUNE = (
    "train_stages", "lr_decay", "mixup", "cutmix", "compile", "sync_batch_norm", "scale_with_workers",
    *_CHECKPOINTING,
)  # fmt: skip
_SEARCH_SPACE = ("search_lr", "search_batch_sizes")
_ONLY_HEAD = ("views", "feature_cache", "search", *_SEARCH_SPACE)


class ArgumentsError(Exception):
    """The command line cannot be used. The message names the argument and what is allowed."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ArgumentsError(f"{message}; {self.prog} --help lists all arguments")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names the defaults, but not of arguments that have none: what those do when absent stands in their help."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def parse_arguments(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> argparse.Namespace:
    """Read the command line; what it leaves out comes from SageMaker's environment variables.

    Hyperparameters may be written with underscores, too, as tuning jobs often name them.

    Raises
    ------
    ArgumentsError
        For an unknown argument or a value that is not allowed, also where it comes from the environment.
    """
    parser = _Parser(
        prog="python -m model.train",
        description="Train a picture classifier.",
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    _add_hyperparameters(parser.add_argument_group("hyperparameters"))
    _add_recipe(parser.add_argument_group("hyperparameters for fine-tuning and large networks"))

    _add_head_arguments(parser.add_argument_group("training of the head alone"))

    places = parser.add_argument_group("places")
    places.add_argument(
        "--data-dir", type=Path, default=environment.get("SM_CHANNEL_TRAINING"),
        help="folder with train/, valid/ and perhaps test/; SM_CHANNEL_TRAINING",
    )  # fmt: skip
    places.add_argument(
        "--model-dir", type=Path, default=environment.get("SM_MODEL_DIR", "build/model"),
        help="where the model artifact is written; SM_MODEL_DIR",
    )  # fmt: skip
    places.add_argument(
        "--output-data-dir", type=Path, default=environment.get("SM_OUTPUT_DATA_DIR", "build/output"),
        help="where metrics.json is written; SM_OUTPUT_DATA_DIR",
    )  # fmt: skip

    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--num-cpus", type=_integer(1, 4096), default=environment.get("SM_NUM_CPUS") or available_vcpus(),
        help="threads for decoding and computing; SM_NUM_CPUS",
    )  # fmt: skip
    machine.add_argument(
        "--num-gpus", type=_integer(0, 64), default=environment.get("SM_NUM_GPUS"),
        help="0: compute on the CPU; without it the GPU is used if there is one; SM_NUM_GPUS",
    )  # fmt: skip
    machine.add_argument(
        "--mixed-precision", choices=MIXED_PRECISION, default="auto",
        help="compute in 16 bits where the result allows it; auto: on GPUs, on: also on CPUs with bfloat16",
    )  # fmt: skip
    machine.add_argument(
        "--max-runtime", type=_real(1, 1e9), metavar="SECONDS",
        help="the training ends early enough for its model to be finished within this time; without it: never",
    )  # fmt: skip
    machine.add_argument(
        "--compile", choices=("on", "off"), default="off",
        help="compile the training step, which takes about a minute and pays for long trainings of large networks",
    )  # fmt: skip
    _add_distribution(parser.add_argument_group("several processes and hosts"), environment)
    _add_checkpoints(parser.add_argument_group("checkpoints"), environment)

    provenance = parser.add_argument_group("provenance, recorded in the artifact")
    provenance.add_argument("--model-name", help="the model's name; without it the data folder's name")
    provenance.add_argument(
        "--job-name", default=environment.get("TRAINING_JOB_NAME"), help="the training job's name; TRAINING_JOB_NAME"
    )
    provenance.add_argument("--code-revision", help="the revision of this program's source")

    arguments = parser.parse_args([_with_hyphens(text) for text in argv])
    if arguments.data_dir is None:
        parser.error("--data-dir is needed where SM_CHANNEL_TRAINING is not set")
    arguments.current_host = arguments.current_host or arguments.hosts[0]
    if arguments.current_host not in arguments.hosts or len(set(arguments.hosts)) < len(arguments.hosts):
        parser.error(
            f"--current-host {arguments.current_host} must be one of --hosts {json.dumps(arguments.hosts)}, "
            "each of which is named once"
        )
    arguments.master_addr = arguments.master_addr or (arguments.hosts[0] if len(arguments.hosts) > 1 else "127.0.0.1")
    _check_effect(parser, arguments)
    if arguments.feature_cache is None:
        arguments.feature_cache = (arguments.checkpoint_dir or Path("build")) / "features"
    container = environment.get("SM_CHECKPOINT_DIR", CHECKPOINT_DIR)
    if str(arguments.checkpoint_dir) == container and (job := environment.get("TRAINING_JOB_NAME")):
        # The training jobs of a tuning job share the place: each has a folder of its own, and all have the features.
        arguments.checkpoint_dir /= job
    return arguments


def _add_hyperparameters(group: argparse._ArgumentGroup) -> None:
    # docs/measurements/training.md has the figures behind the defaults.
    group.add_argument("--architecture", default="resnet9", help="resnet9, or a torchvision network")
    group.add_argument(
        "--weights", default="none",
        help="what to start from: a state dictionary's path or s3://BUCKET/KEY, default: torchvision's published "
        "weights, none: random ones",
    )  # fmt: skip
    group.add_argument(
        "--input-size", type=_integer(16, 1024),
        help="side of the network's input, pixels; without it 64, or with --weights default what those are made for",
    )  # fmt: skip
    group.add_argument("--epochs", type=_integer(1, 10_000), default=40, help="at most so many")
    group.add_argument(
        "--batch-size", type=_integer(2, 65_536), default=64, help="pictures per step, on all workers together"
    )
    group.add_argument("--lr", type=_real(1e-8, 10), default=0.01, help="peak learning rate")
    group.add_argument("--weight-decay", type=_real(0, 10), default=0.1, help="AdamW's, not for biases")
    group.add_argument("--label-smoothing", type=_real(0, 0.9), default=0.1, help="share given to all classes alike")
    group.add_argument(
        "--patience", type=_integer(0, 10_000), default=0,
        help="stop after so many epochs without a lower validation loss; 0: never",
    )  # fmt: skip
    group.add_argument(
        "--precision", choices=("auto", "fp32"), default="auto",
        help="of the graph that is served; auto: int8 where it is faster and within the two limits below",
    )  # fmt: skip
    group.add_argument(
        "--int8-max-accuracy-loss", type=_real(-1, 1), default=0.005,
        help="accuracy that int8 may lose on the validation pictures; 0.005 is half a point",
    )  # fmt: skip
    group.add_argument(
        "--int8-min-agreement", type=_real(0, 1), default=0.985,
        help="share of the validation pictures that int8 must classify as fp32 does",
    )  # fmt: skip
    group.add_argument("--seed", type=_integer(0, 2**63 - 1), default=0, help="of all that is random")


def _add_head_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--mode", choices=("finetune", "head"), default="finetune",
        help="finetune: train the network; head: compute the features of every picture once and train the last layer",
    )  # fmt: skip
    group.add_argument(
        "--views", type=_integer(1, 1000), default=1,
        help="of every training picture: the one that the server would see, and so many less one augmented ones",
    )  # fmt: skip
    group.add_argument(
        "--feature-cache", type=Path,
        help="where features are kept; a training that finds its own there does not compute them again; without it "
        "the folder features in --checkpoint-dir, or in build",
    )  # fmt: skip
    group.add_argument(
        "--search", type=_integer(0, 10_000), default=0, metavar="TRIALS",
        help="try so many values of --lr and --batch-size, and keep the best; 0: train once, with the values given",
    )  # fmt: skip
    group.add_argument(
        "--search-lr", type=_range(1e-8, 10), default="0.001,0.1", metavar="LOW,HIGH", help="learning rates to search"
    )
    group.add_argument(
        "--search-batch-sizes", type=_integers(2, 65_536), default="32,64,128,256,512", metavar="SIZE,…",
        help="batch sizes to choose from",
    )  # fmt: skip


def _check_effect(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse what nothing would look at: whoever says it expects something of it."""
    defaults = parser.parse_args([])

    def refuse(names: Sequence[str], setting: str) -> None:
        for name in names:
            if getattr(arguments, name) != getattr(defaults, name):
                parser.error(f"--{name.replace('_', '-')} means nothing {setting}; leave it out")

    refuse(_ONLY_FINETUNE if arguments.mode == "head" else _ONLY_HEAD, f"to --mode {arguments.mode}")
    if not arguments.search:
        refuse(_SEARCH_SPACE, "without --search")
    elif importlib.util.find_spec("optuna") is None:
        parser.error("--search needs optuna; install what model/requirements.txt lists, or train without")
    if arguments.checkpoint_dir is None:
        refuse(_CHECKPOINTING, "without --checkpoint-dir")


def _add_recipe(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--train-stages", type=_integer(0, 1000), default=0,
        help="train only so many of the last stages, the classifier among them; 0: all",
    )  # fmt: skip
    group.add_argument(
        "--lr-decay", type=_real(0.01, 1), default=1.0,
        help="learning rate of a stage over that of the next one toward the output",
    )  # fmt: skip
    group.add_argument("--mixup", type=_real(0, 10), default=0.0, help="alpha of mixup; 0: off, 0.2 is usual")
    group.add_argument("--cutmix", type=_real(0, 10), default=0.0, help="alpha of CutMix; 0: off, 1 is usual")
    group.add_argument(
        "--ema", type=_real(0, 0.99999), default=0.0,
        help="decay per step of the moving average of the weights, which is then what is kept; 0: off",
    )  # fmt: skip
    group.add_argument(
        "--class-weights", choices=CLASS_WEIGHTS, default="none",
        help="for classes of unlike size: balanced weighs the losses, sampler shows every class equally often",
    )  # fmt: skip


def _add_distribution(group: argparse._ArgumentGroup, environment: Mapping[str, str]) -> None:
    group.add_argument(
        "--hosts", type=_names, default=environment.get("SM_HOSTS", '["localhost"]'),
        help="JSON list of the machines that train together; SM_HOSTS",
    )  # fmt: skip
    group.add_argument(
        "--current-host", default=environment.get("SM_CURRENT_HOST"), help="this machine's name; SM_CURRENT_HOST"
    )
    group.add_argument(
        "--processes-per-host", type=_integer(1, 64),
        help="workers on each host; without it one for each GPU, or one",
    )  # fmt: skip
    group.add_argument(
        "--master-addr", default=environment.get("SM_MASTER_ADDR") or environment.get("MASTER_ADDR"),
        help="where the hosts meet; without it the first host's name; SM_MASTER_ADDR",
    )  # fmt: skip
    group.add_argument(
        "--master-port", type=_integer(1, 65_535),
        default=environment.get("SM_MASTER_PORT") or environment.get("MASTER_PORT") or 7777,
        help="its port; SM_MASTER_PORT",
    )  # fmt: skip
    group.add_argument(
        "--sync-batch-norm", choices=("on", "off"), default="off",
        help="on: batch normalisation over all workers' images, on GPUs; off: over each worker's share",
    )  # fmt: skip
    group.add_argument(
        "--scale-with-workers", choices=("on", "off"), default="off",
        help="on: multiply --batch-size and --lr by the number of workers",
    )  # fmt: skip


def _add_checkpoints(group: argparse._ArgumentGroup, environment: Mapping[str, str]) -> None:
    container = environment.get("SM_CHECKPOINT_DIR") or (CHECKPOINT_DIR if Path(CHECKPOINT_DIR).is_dir() else None)
    group.add_argument(
        "--checkpoint-dir", type=Path, default=container,
        help=f"where a killed training finds what it needs to go on; without it {CHECKPOINT_DIR}, where that exists",
    )  # fmt: skip
    group.add_argument(
        "--checkpoint-minutes", type=_real(0, 10_000), default=5.0, help="from one to the next; 0: after every step"
    )
    group.add_argument("--checkpoint-keep", type=_integer(1, 1000), default=2, help="how many of the newest are kept")


def _integer(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = lowest - 1
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest} to {highest}")
        return value

    return parse


def _real(lowest: float, highest: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {lowest:g} to {highest:g}")
        return value

    return parse


def _range(lowest: float, highest: float) -> Callable[[str], tuple[float, float]]:
    def parse(text: str) -> tuple[float, float]:
        low, _, high = text.partition(",")
        bounds = _real(lowest, highest)(low), _real(lowest, highest)(high)
        if bounds[0] >= bounds[1]:
            raise argparse.ArgumentTypeError(f"{text!r} is not a lower and a higher number such as 0.001,0.1")
        return bounds

    return parse


def _integers(lowest: int, highest: int) -> Callable[[str], tuple[int, ...]]:
    def parse(text: str) -> tuple[int, ...]:
        return tuple(sorted({_integer(lowest, highest)(part) for part in text.split(",")}))

    return parse


def _names(text: str) -> list[str]:
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise argparse.ArgumentTypeError(f'{text!r} is not a JSON list of names such as ["algo-1"]')
    return names


def _with_hyphens(text: str) -> str:
    if not text.startswith("--"):
        return text
    name, separator, value = text.partition("=")
    return name.replace("_", "-") + separator + value
