"""Which hyperparameters a tuning job tries next, and which of its training jobs it ends early.

A proposal depends on nothing but the job's settings and the records of its training jobs. So a search that is cut off
by the end of the server goes on as if nothing had happened, and the same seed gives the same proposals.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Literal

from emulator.sagemaker.tuning.ranges import Ranges, combinations, coordinates, load_optuna

Strategy = Literal["Bayesian", "Random", "Grid", "Hyperband"]
#: Random points before the model of the objective is asked; half of optuna's default, since trainings are dear.
_STARTUP_TRIALS = 5
#: A median of fewer jobs says nothing: the second job of a search would be ended for being worse than the first.
MIN_COMPARED = 3


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
    ranges: Ranges
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
        for trial in [*self.observed, *trials]:
            params = coordinates(self.ranges, trial.values)
            if params is not None and not (trial.ended and trial.objective is None):  # a failure teaches nothing
                state = optuna.trial.TrialState.COMPLETE if trial.ended else optuna.trial.TrialState.RUNNING
                value = trial.objective if trial.ended else None
                study.add_trial(
                    optuna.trial.create_trial(state=state, params=params, distributions=self.ranges, value=value)
                )
        asked = study.ask(self.ranges)
        return {name: _text(searched, asked.params[name]) for name, searched in self.ranges.items()}


def _text(searched: Any, chosen: Any) -> str:
    if hasattr(searched, "choices"):
        return str(chosen)
    return str(min(max(chosen, searched.low), searched.high))  # a logarithm may be rounded to beyond an end


class MedianRule:
    """TrainingJobEarlyStoppingType Auto, as AWS documents it ("Stop Training Jobs Early").

    A job is ended when its objective is worse than the median of the running averages of the objective, up to the same
    epoch, over the jobs that have ended before and came that far.
    """

    def __init__(self, *, minimize: bool) -> None:
        self._sign = 1 if minimize else -1

    def hopeless(self, trials: Sequence[Trial]) -> list[str]:
        """Names of the running jobs to end; `trials` are all jobs of the search in their order."""
        return [trial.name for trial in trials if not trial.ended and trial.series and self._is_worse(trial, trials)]

    def _is_worse(self, trial: Trial, trials: Sequence[Trial]) -> bool:
        epoch = len(trial.series)
        averages = [fmean(other.series[:epoch]) for other in trials if other.ended and len(other.series) >= epoch]
        enough = len(averages) >= MIN_COMPARED
        return enough and self._sign * trial.series[-1] > self._sign * median(averages)


class Hyperband:
    """Asynchronous Hyperband: only the best third of the jobs that reach a rung goes on to the next.

    Nothing is ended before epoch `min_resource`, and every job at epoch `max_resource`. `name` decides which jobs share
    a bracket, always in the same way.
    """

    def __init__(self, *, minimize: bool, min_resource: int, max_resource: int, name: str) -> None:
        self._max_resource = max_resource
        optuna = load_optuna()
        self._study = optuna.create_study(
            study_name=name,
            direction="minimize" if minimize else "maximize",
            pruner=optuna.pruners.HyperbandPruner(min_resource=min_resource, max_resource=max_resource),
        )
        self._asked: dict[str, Any] = {}
        self._reported: dict[str, int] = {}
        self._hopeless: set[str] = set()

    def hopeless(self, trials: Sequence[Trial]) -> list[str]:
        """Names of the running jobs that did not get on to their next rung, or that have had all their epochs.

        The end of a job is not reported: a rung asks what a job had reached, not whether it goes on.
        """
        for trial in trials:
            asked = self._asked.get(trial.name) or self._asked.setdefault(trial.name, self._study.ask())
            for step in range(self._reported.get(trial.name, 0) + 1, len(trial.series) + 1):
                asked.report(trial.series[step - 1], step)
                self._reported[trial.name] = step
                if step >= self._max_resource or asked.should_prune():
                    self._hopeless.add(trial.name)
        return [trial.name for trial in trials if not trial.ended and trial.name in self._hopeless]
