"""The values that a tuning job searches: read from its ParameterRanges."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from emulator.platform.awsapi import Payload, ServiceError
from emulator.platform.errors import refuse

#: AWS's limit for the hyperparameters of one search.
MAX_SEARCHED = 30
#: AWS does not say how it chooses a scale for ScalingType Auto; here, logarithmic from this ratio of the ends on.
_LOGARITHMIC_FROM = 100


@dataclass(frozen=True)
class NumberRange:
    """An integer or continuous range."""

    name: str
    low: float
    high: float
    logarithmic: bool
    integer: bool

    def coordinate(self, text: str) -> float | None:
        """The value of a hyperparameter; None where it does not lie in the range."""
        try:
            value = float(text)
        except ValueError:
            return None
        if not self.low <= value <= self.high or (self.integer and value != int(value)):
            return None
        return int(value) if self.integer else value


@dataclass(frozen=True)
class CategoricalRange:
    """One of a few texts."""

    name: str
    values: tuple[str, ...]

    def coordinate(self, text: str) -> str | None:
        """The text, or None where it is none of the values."""
        return text if text in self.values else None


Range = NumberRange | CategoricalRange


def read_ranges(ranges: Payload) -> tuple[Range, ...]:
    """The ranges of a request, checked."""
    refuse(ranges.get("AutoParameters"), "The local AWS has no AutoParameters: give every range.")
    found = tuple(_read_all(ranges))
    names = [found_range.name for found_range in found]
    refuse(not found, "At least one hyperparameter needs a range.")
    if len(found) > MAX_SEARCHED:
        raise ServiceError("ResourceLimitExceeded", f"At most {MAX_SEARCHED} hyperparameters can have ranges.")
    twice = sorted({name for name in names if names.count(name) > 1})
    refuse(twice, f"Hyperparameters with more than one range: {', '.join(twice)}.")
    return found


def combinations(ranges: tuple[Range, ...]) -> list[dict[str, str]]:
    """Every combination of categorical values, in the order of the request; the last range varies fastest."""
    values = [found.values for found in ranges if isinstance(found, CategoricalRange)]
    return [dict(zip((found.name for found in ranges), chosen, strict=True)) for chosen in product(*values)]


def _read_all(ranges: Payload) -> Iterator[Range]:
    for kind, integer in (("ContinuousParameterRanges", False), ("IntegerParameterRanges", True)):
        yield from (_read_number(definition, integer) for definition in ranges.get(kind, []))
    for definition in ranges.get("CategoricalParameterRanges", []):
        values = tuple(definition["Values"])
        _check(definition, len(set(values)) == len(values), "its values are not all different")
        yield CategoricalRange(definition["Name"], values)


def _read_number(definition: Payload, integer: bool) -> NumberRange:
    low, high = (_number(definition, member, integer) for member in ("MinValue", "MaxValue"))
    _check(definition, low < high, f"MinValue ({low:g}) must be less than MaxValue ({high:g})")
    scale = definition.get("ScalingType", "Auto")
    _check(definition, scale != "ReverseLogarithmic", "the local AWS has no reverse logarithmic scaling")
    if scale == "Auto":
        scale = "Logarithmic" if low > 0 and high / low >= _LOGARITHMIC_FROM else "Linear"
    _check(definition, scale == "Linear" or low > 0, "logarithmic scaling needs values greater than 0")
    return NumberRange(definition["Name"], low, high, scale == "Logarithmic", integer)


def _number(definition: Payload, member: str, integer: bool) -> float:
    text = definition[member]
    try:
        value = int(text) if integer else float(text)
    except ValueError:
        value = math.nan
    kind = "an integer" if integer else "a number"
    _check(definition, math.isfinite(value), f"{member} {text!r} is not {kind}")
    return value


def _check(definition: Payload, right: bool, problem: str) -> None:
    refuse(not right, f"The range of the hyperparameter {definition['Name']} is invalid: {problem}.")
