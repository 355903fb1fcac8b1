"""Which hyperparameters a tuning job tries next.

A proposal depends on nothing but the job's settings and the records of its training jobs. So a search that is cut off
by the end of the server goes on as if nothing had happened, and the same seed gives the same proposals.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from emulator.sagemaker.tuning.ranges import CategoricalRange, Range, combinations

Strategy = Literal["Bayesian", "Random", "Grid", "Hyperband"]
#: Random points before the model of the objective is asked; half of optuna's default, since trainings are dear.
_STARTUP_TRIALS = 5


@dataclass(frozen=True)
class Trial:
    """One training job: its tuned hyperparameters, its final objective, and the objective of every epoch so far."""

    name: str
    values: Mapping[str, str]
    objective: float | None
    ended: bool
    series: tuple[float, ...] = ()


@dataclass(frozen=True)
class Search:
    """How a tuning job chooses.

    Attributes
    ----------
    observed
        Results of earlier tuning jobs with the same objective on the same data: they count as the job's own.
    suggested
        Values to try before anything else: the best of earlier tuning jobs on other data.
    """

    strategy: Strategy
    ranges: tuple[Range, ...]
    minimize: bool
    seed: int
    observed: tuple[Trial, ...] = ()
    suggested: tuple[Mapping[str, str], ...] = ()

    def propose(self, trials: Sequence[Trial]) -> dict[str, str] | None:
        """The hyperparameters of the training job after `trials`, None when a grid has been searched."""
        number = len(trials)
        if self.strategy == "Grid":
            grid = combinations(self.ranges)
            return grid[number] if number < len(grid) else None
        if number < len(self.suggested):
            return dict(self.suggested[number])
        optuna = load_optuna()
        # A sampler is made for every proposal: its state, which nothing keeps, is replaced by a seed of its own.
        seed = zlib.crc32(f"{self.seed}/{number}".encode())
        if self.strategy == "Random":
            sampler = optuna.samplers.RandomSampler(seed=seed)
        else:
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP_TRIALS, constant_liar=True)
        study = optuna.create_study(direction="minimize" if self.minimize else "maximize", sampler=sampler)
        distributions = {found.name: _distribution(optuna, found) for found in self.ranges}
        for trial in [*self.observed, *trials]:
            coordinates = self._coordinates(trial)
            if coordinates is not None and not (trial.ended and trial.objective is None):  # a failure teaches nothing
                state = optuna.trial.TrialState.COMPLETE if trial.ended else optuna.trial.TrialState.RUNNING
                value = trial.objective if trial.ended else None
                study.add_trial(
                    optuna.trial.create_trial(state=state, params=coordinates, distributions=distributions, value=value)
                )
        asked = study.ask(distributions)
        return {found.name: _text(found, asked.params[found.name]) for found in self.ranges}

    def _coordinates(self, trial: Trial) -> dict[str, Any] | None:
        """Where a training job lies; None outside of the ranges."""
        found = {each.name: each.coordinate(trial.values.get(each.name, "")) for each in self.ranges}
        return None if None in found.values() else found


def load_optuna() -> ModuleType:
    """Import optuna when the first search needs it (0.3 s), and keep it from writing to the server's log."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def _text(found: Range, chosen: Any) -> str:
    if isinstance(found, CategoricalRange):
        return str(chosen)
    return str(min(max(chosen, found.low), found.high))  # a logarithm may be rounded to beyond an end


def _distribution(optuna: Any, found: Range) -> Any:
    if isinstance(found, CategoricalRange):
        return optuna.distributions.CategoricalDistribution(found.values)
    if found.integer:
        return optuna.distributions.IntDistribution(int(found.low), int(found.high), log=found.logarithmic)
    return optuna.distributions.FloatDistribution(found.low, found.high, log=found.logarithmic)
