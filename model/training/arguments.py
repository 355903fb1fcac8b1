"""The training's command line: the options of `config.py`, and the variables that SageMaker sets in their place."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .config import Recipe, TrainingConfig
from .defaults import TABLE, defaults_for

# What SageMaker keeps the same as the job's checkpoint location.
CHECKPOINT_DIR = "/opt/ml/checkpoints"

_CHECKPOINTING = ("checkpoint_minutes", "checkpoint_keep")
_SEARCH_SPACE = ("search_lr", "search_batch_sizes")
_AUGMENTATION = ("augment", "mirror", "crop_scale", "rotation", "color")
# What only one of the two modes looks at. The features are computed by a network in evaluation mode.
_ONLY = {
    "finetune": (
        "train_stages", "lr_decay", "mixup", "cutmix", "accumulate", "compile", "sync_batch_norm", *_CHECKPOINTING
    ),
    "head": ("views", "feature_cache", "search", *_SEARCH_SPACE),
}  # fmt: skip


class ArgumentsError(Exception):
    """The command line cannot be used. The message names the argument and what is allowed."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ArgumentsError(f"{message}; {self.prog} --help lists all arguments")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names the defaults, but not of arguments that have none: their help says what happens without them."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def canonical(name: str) -> str:
    """Return a hyperparameter's name as `--help` lists it: tuning jobs often write `_` for `-`."""
    return name.replace("_", "-")


def set_by_jobs() -> set[str]:
    """Return the arguments that every job gets from its platform: the places, the hosts, its name."""
    from_variables = {canonical(field.name) for field in _fields(TrainingConfig) if field.metadata["variables"]}
    return from_variables - {"num-cpus", "num-gpus"}


def parse_arguments(
    argv: Sequence[str], environment: Mapping[str, str] = os.environ, *, trains_here: bool = True
) -> TrainingConfig:
    """Read the command line; what it leaves out comes from SageMaker's environment variables.

    Where the training itself is to run on another machine, the libraries of this one do not matter: `trains_here`.
    Raises ArgumentsError for an unknown argument or a value that is not allowed, also one from the environment.
    """
    parser = _parser(environment)
    known, unknown = parser.parse_known_args([_with_hyphens(text) for text in argv])
    if unknown:
        names = [canonical(field.name) for field in _fields(TrainingConfig)]
        near = difflib.get_close_matches(unknown[0].partition("=")[0].lstrip("-").lower(), names, n=1)
        parser.error(
            f"unrecognized arguments: {' '.join(unknown)}{''.join(f'; did you mean --{name}?' for name in near)}"
        )
    given = vars(known)
    if given["data_dir"] is None:
        parser.error("--data-dir is needed where SM_CHANNEL_TRAINING is not set")
    _check_effect(parser, given)
    if given["search"] and trains_here and importlib.util.find_spec("optuna") is None:
        parser.error("--search needs optuna; install what model/training/job/requirements.txt lists, or train without")
    hosts = given["hosts"]
    given["current_host"] = given["current_host"] or hosts[0]
    if given["current_host"] not in hosts or len(set(hosts)) < len(hosts):
        parser.error(
            f"--current-host {given['current_host']} must be one of --hosts {json.dumps(hosts)}, "
            "each of which is named once"
        )
    given["master_addr"] = given["master_addr"] or (hosts[0] if len(hosts) > 1 else "127.0.0.1")
    given["feature_cache"] = given["feature_cache"] or (given["checkpoint_dir"] or Path("build")) / "features"
    shared = environment.get("SM_CHECKPOINT_DIR", CHECKPOINT_DIR)
    if str(given["checkpoint_dir"]) == shared and (job := environment.get("TRAINING_JOB_NAME")):
        # The training jobs of a tuning job share the place: each has a folder of its own, and all have the features.
        given["checkpoint_dir"] /= job
    defaults = defaults_for(given["architecture"], given["weights"], given["mode"])
    for name in ("lr", "weight_decay"):
        given[name] = getattr(defaults, name) if given[name] is None else given[name]
    recipe = Recipe(**{field.name: given.pop(field.name) for field in dataclasses.fields(Recipe)})
    return TrainingConfig(recipe=recipe, **given)


def _parser(environment: Mapping[str, str]) -> _Parser:
    parser = _Parser(
        prog="python -m model.train",
        description="Train an image classifier.",
        epilog="--lr and --weight-decay without a value, from random weights or fine-tuned: "
        + "; ".join(f"{row.family}: {row.lr:g}, {row.weight_decay:g}" for row in TABLE),
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    groups: dict[str, Any] = {}
    for field in _fields(TrainingConfig):
        group, argument = field.metadata["group"], dict(field.metadata["argument"])
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        if given := [environment[name] for name in field.metadata["variables"] if environment.get(name)]:
            argument["default"] = given[0]
        groups[group].add_argument(f"--{canonical(field.name)}", **argument)
    if Path(CHECKPOINT_DIR).is_dir() and parser.get_default("checkpoint_dir") is None:
        parser.set_defaults(checkpoint_dir=Path(CHECKPOINT_DIR))
    return parser


def _fields(config: type) -> Iterator[dataclasses.Field[Any]]:
    for field in dataclasses.fields(config):
        yield from _fields(Recipe) if field.name == "recipe" else (field,)


def _check_effect(parser: _Parser, given: Mapping[str, Any]) -> None:
    """Refuse arguments that have no effect: the person who gives one expects something of it."""
    mode, defaults = given["mode"], vars(parser.parse_args([]))
    for names, idle, setting in (
        (_ONLY["finetune" if mode == "head" else "head"], True, f"to --mode {mode}"),
        (_SEARCH_SPACE, not given["search"], "without --search"),
        (_CHECKPOINTING, given["checkpoint_dir"] is None, "without --checkpoint-dir"),
        (_AUGMENTATION, mode == "head" and given["views"] == 1, "without --views"),
        ((*_AUGMENTATION[1:], "views"), given["augment"] == "none", "with --augment none"),
        (("rotation", "color"), given["augment"] == "trivial", "with --augment trivial"),
    ):
        for name in names:
            if idle and given[name] != defaults[name]:
                parser.error(f"--{canonical(name)} means nothing {setting}; leave it out")


def _with_hyphens(text: str) -> str:
    if not text.startswith("--"):
        return text
    name, separator, value = text.partition("=")
    return canonical(name) + separator + value
