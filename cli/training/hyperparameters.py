"""Hyperparameters on their way to the training program and back: names, JSON, and who chose them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping

from cli.errors import UsageError
from model.training.arguments import canonical
from model.training.config import Recipe

#: The name of the data set, recorded in the artifact.
DATA_SET = "model-name"
#: Chosen by nobody: where a model comes from, and the time that the settings give its training.
_NOT_CHOSEN = (DATA_SET, "code-revision", "max-runtime")
#: What speaks to the container or to SageMaker, and not to the program.
_NOT_OF_THE_PROGRAM = ("sagemaker_", "_tuning_")


def parse_hyperparameters(assignments: list[str]) -> dict[str, str]:
    """Return `["lr=0.01"]` as `{"lr": "0.01"}`, the names as model/train.py lists them."""
    parsed = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
            raise UsageError(f"--set {assignment!r} is not NAME=VALUE, such as --set lr=0.01")
        if canonical(name) in parsed:
            raise UsageError(f"--set gives {canonical(name)} twice.", "Give it once.")
        parsed[canonical(name)] = value
    return parsed


def refuse_shell_syntax(values: Mapping[str, str]) -> None:
    """Refuse what a shell would change: SageMaker's toolkit lets one run names and values, joined without quotes."""
    for name, value in values.items():
        if shlex.quote(name) != name or shlex.quote(value) != value:
            raise UsageError(
                f"The hyperparameter {name}={value!r} cannot be passed on: in a training job a shell reads it.",
                "Use letters, digits and @ % + = : , . / - _ only, and no empty value.",
            )


def encode(hyperparameters: Mapping[str, object]) -> dict[str, str]:
    """Return them as CreateTrainingJob takes them: the container's toolkit reads JSON values."""
    return {name: json.dumps(value) for name, value in hyperparameters.items()}


def decode(hyperparameters: Mapping[str, str]) -> dict[str, str]:
    """Return the program's own of those that SageMaker holds, of which the tuned ones are bare texts."""
    return {
        canonical(name): _text(value)
        for name, value in hyperparameters.items()
        if not name.startswith(_NOT_OF_THE_PROGRAM)
    }


def chosen(hyperparameters: Mapping[str, str]) -> dict[str, str]:
    """Return those that a person, the settings or a search chose: `decode`, without what every training is given."""
    return {name: value for name, value in decode(hyperparameters).items() if name not in _NOT_CHOSEN}


def planned_epochs(hyperparameters: Mapping[str, str]) -> int | None:
    """Return how many epochs a training has at most, None where that is no number."""
    epochs = decode(hyperparameters).get("epochs", str(Recipe.epochs))
    return int(epochs) if epochs.isdecimal() else None


def _text(value: str) -> str:
    try:
        decoded = json.loads(value)
    except ValueError:
        return value
    return decoded if isinstance(decoded, str) else value
