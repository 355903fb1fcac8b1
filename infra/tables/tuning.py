"""The table ``[training.tuning]`` of the settings: what a tuning job searches, and how."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import StrictBool, StrictFloat

from infra.validation import Table, between, matching

#: A hyperparameter of model/train.py, which takes `_` for `-`.
HyperparameterName = Annotated[str, matching(r"[a-z][a-z0-9_-]*", "a hyperparameter such as weight-decay")]


@dataclass(frozen=True, kw_only=True)
class NumberRange(Table):
    """A hyperparameter that a tuning job varies between two numbers."""

    name: HyperparameterName
    min: StrictFloat
    max: StrictFloat
    #: Logarithmic: as many values are tried between 0.001 and 0.01 as between 0.01 and 0.1.
    scale: Literal["linear", "logarithmic"] = "linear"
    #: Whole numbers only.
    integer: StrictBool = False

    def conflicts(self) -> Iterator[str]:
        if not -math.inf < self.min < self.max < math.inf:
            yield f"min: {self.min:g} must be less than max ({self.max:g}), and both finite"
        elif self.scale == "logarithmic" and self.min <= 0:
            yield f"min: {self.min:g} must be more than 0 on a logarithmic scale"
        elif self.integer and not (self.min.is_integer() and self.max.is_integer()):
            yield f"integer: {self.min:g} and {self.max:g} are not whole numbers"


@dataclass(frozen=True, kw_only=True)
class ChoiceRange(Table):
    """A hyperparameter for which a tuning job tries one of several texts."""

    name: HyperparameterName
    values: tuple[Annotated[str, matching(r".{1,256}", "a text of 1 to 256 characters")], ...]

    def conflicts(self) -> Iterator[str]:
        if not 1 <= len(self.values) <= 30 or len(set(self.values)) < len(self.values):
            yield "values: 1 to 30 different texts"


@dataclass(frozen=True, kw_only=True)
class TuningSettings(Table):
    """What `kennel tune` searches, and how; every value of it can be overridden there."""

    strategy: Literal["bayesian", "random", "hyperband"] = "bayesian"
    #: AWS's quotas: 750 training jobs, 100 at a time.
    max_jobs: Annotated[int, between(1, 750)] = 20
    #: Each runs on `instance_count` machines; a Bayesian search learns less the more of its jobs run at a time.
    parallel_jobs: Annotated[int, between(1, 100)] = 2
    #: End trainings that do worse than the median of the earlier ones; Hyperband does so by itself, in its own way.
    early_stopping: StrictBool = False
    #: Without both: by network family, as `model/training/defaults.py` has them.
    learning_rate_min: Annotated[float, between(1e-8, 10)] | None = None
    learning_rate_max: Annotated[float, between(1e-8, 10)] | None = None
    batch_sizes: tuple[Annotated[int, between(2, 65_536)], ...] = (32, 64, 128, 256, 512)
    #: Further hyperparameters to search.
    numbers: tuple[NumberRange, ...] = ()
    choices: tuple[ChoiceRange, ...] = ()

    def conflicts(self) -> Iterator[str]:
        if self.parallel_jobs > self.max_jobs:
            yield f"parallel_jobs: {self.parallel_jobs} is more than max_jobs ({self.max_jobs})"
        if self.learning_rate_min is None or self.learning_rate_max is None:
            if self.learning_rate_min != self.learning_rate_max:
                yield "learning_rate_min, learning_rate_max: give both or neither"
        elif self.learning_rate_min >= self.learning_rate_max:
            yield (
                f"learning_rate_min: {self.learning_rate_min:g} must be less than learning_rate_max "
                f"({self.learning_rate_max:g})"
            )
        if not 1 <= len(self.batch_sizes) <= 30 or len(set(self.batch_sizes)) < len(self.batch_sizes):
            yield "batch_sizes: 1 to 30 different sizes"
        names = ["lr", "batch-size", *(n.name for n in self.numbers), *(c.name for c in self.choices)]
        names = [name.replace("_", "-") for name in names]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            yield f"numbers, choices: more than one range for {', '.join(twice)}"
