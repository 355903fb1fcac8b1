"""The values that a tuning job searches: its ParameterRanges, as optuna's distributions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from itertools import product
from types import ModuleType
from typing import Any

from emulator.platform.awsapi import Payload, ServiceError
from emulator.platform.errors import refuse

#: By hyperparameter, what it may be: one of optuna's distributions.
Ranges = Mapping[str, Any]

#: AWS's limit for the hyperparameters of one search.
MAX_SEARCHED = 30
#: AWS does not say how it chooses a scale for ScalingType Auto; here, logarithmic from this ratio of the ends on.
_LOGARITHMIC_FROM = 100


def load_optuna() -> ModuleType:
    """Import optuna when the first search needs it (0.3 s), and keep it from writing to the server's log."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def read_ranges(ranges: Payload) -> Ranges:
    kinds = {"ContinuousParameterRanges": float, "IntegerParameterRanges": int}
    found = [
        (given["Name"], _read_number(given, kind)) for member, kind in kinds.items() for given in ranges.get(member, [])
    ]
    found += [(given["Name"], _read_choices(given)) for given in ranges.get("CategoricalParameterRanges", [])]
    names = [name for name, _ in found]
    refuse(not found, "At least one hyperparameter needs a range.")
    if len(found) > MAX_SEARCHED:
        raise ServiceError("ResourceLimitExceeded", f"At most {MAX_SEARCHED} hyperparameters can have ranges.")
    twice = sorted({name for name in names if names.count(name) > 1})
    refuse(twice, f"Hyperparameters with more than one range: {', '.join(twice)}.")
    return dict(found)


def coordinates(ranges: Ranges, values: Mapping[str, str]) -> dict[str, Any] | None:
    """Where hyperparameters lie in the ranges; None where one of them is outside of its range."""
    found = {name: _coordinate(searched, values.get(name, "")) for name, searched in ranges.items()}
    return None if None in found.values() else found


def combinations(ranges: Ranges) -> list[dict[str, str]]:
    """Every combination of categorical values, in the order of the request; the last range varies fastest."""
    choices = product(*(searched.choices for searched in ranges.values()))
    return [dict(zip(ranges, chosen, strict=True)) for chosen in choices]


def _coordinate(searched: Any, text: str) -> Any:
    if hasattr(searched, "choices"):
        return text if text in searched.choices else None
    try:
        value = type(searched.low)(text)
    except ValueError:
        return None
    return value if searched.low <= value <= searched.high else None


def _read_choices(definition: Payload) -> Any:
    values = definition["Values"]
    _check(definition, len(set(values)) == len(values), "its values are not all different")
    return load_optuna().distributions.CategoricalDistribution(values)


def _read_number(definition: Payload, kind: type[int] | type[float]) -> Any:
    low, high = (_number(definition, member, kind) for member in ("MinValue", "MaxValue"))
    _check(definition, low < high, f"MinValue ({low:g}) must be less than MaxValue ({high:g})")
    scale = definition.get("ScalingType", "Auto")
    _check(definition, scale != "ReverseLogarithmic", "the local AWS has no reverse logarithmic scaling")
    if scale == "Auto":
        scale = "Logarithmic" if low > 0 and high / low >= _LOGARITHMIC_FROM else "Linear"
    _check(definition, scale == "Linear" or low > 0, "logarithmic scaling needs values greater than 0")
    distributions = load_optuna().distributions
    distribution = distributions.IntDistribution if kind is int else distributions.FloatDistribution
    return distribution(low, high, log=scale == "Logarithmic")


def _number(definition: Payload, member: str, kind: type[int] | type[float]) -> float:
    text = definition[member]
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    what = "an integer" if kind is int else "a number"
    _check(definition, math.isfinite(value), f"{member} {text!r} is not {what}")
    return value


def _check(definition: Payload, right: bool, problem: str) -> None:
    refuse(not right, f"The range of the hyperparameter {definition['Name']} is invalid: {problem}.")
