"""Which training jobs of a tuning job are ended early, by the values of the objective that they report."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from emulator.sagemaker.tuning.search import Trial, load_optuna

#: A median of fewer jobs says nothing: the second job of a search would be ended for being worse than the first.
MIN_COMPARED = 3


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
