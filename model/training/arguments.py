"""The training's command line: hyperparameters, and a twin for every variable that SageMaker sets."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from ..serving_settings import available_vcpus


class ArgumentsError(Exception):
    """The command line cannot be used. The message names the argument and what is allowed."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ArgumentsError(f"{message}; python train.py --help lists all arguments")


def parse_arguments(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> argparse.Namespace:
    """Read the command line; what it leaves out comes from SageMaker's environment variables.

    Hyperparameters may be written with underscores, too, as tuning jobs often name them.

    Raises
    ------
    ArgumentsError
        For an unknown argument or a value that is not allowed, also where it comes from the environment.
    """
    parser = _Parser(
        prog="train.py",
        description="Train a picture classifier.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_hyperparameters(parser.add_argument_group("hyperparameters"))

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
        "--hosts", type=_names, default=environment.get("SM_HOSTS", '["localhost"]'),
        help="JSON list of the machines that train together; SM_HOSTS",
    )  # fmt: skip

    provenance = parser.add_argument_group("provenance, recorded in the artifact")
    provenance.add_argument("--model-name", help="the model's name; without it the data folder's name")
    provenance.add_argument(
        "--job-name", default=environment.get("TRAINING_JOB_NAME"), help="the training job's name; TRAINING_JOB_NAME"
    )
    provenance.add_argument("--code-revision", help="the revision of this program's source")

    arguments = parser.parse_args([_with_hyphens(text) for text in argv])
    if arguments.data_dir is None:
        parser.error("--data-dir is needed where SM_CHANNEL_TRAINING is not set")
    if len(arguments.hosts) > 1:
        parser.error(f"this training runs on one instance; on {len(arguments.hosts)} each would train the whole model")
    return arguments


def _add_hyperparameters(group: argparse._ArgumentGroup) -> None:
    # docs/training.md has the measurements behind the defaults.
    group.add_argument("--architecture", default="resnet9", help="resnet9, or a torchvision network")
    group.add_argument("--weights", type=Path, help="a state dictionary to start from, instead of random weights")
    group.add_argument("--input-size", type=_integer(16, 1024), default=64, help="side of the network's input, pixels")
    group.add_argument("--epochs", type=_integer(1, 10_000), default=40, help="at most so many")
    group.add_argument("--batch-size", type=_integer(2, 65_536), default=64, help="pictures per step")
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
