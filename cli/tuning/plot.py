"""A tuning job's charts, as optuna draws them: what each training job tried and reached, and how the best was found."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import matplotlib
import optuna
from matplotlib import pyplot
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from optuna.visualization.matplotlib import plot_optimization_history, plot_parallel_coordinate

from cli.console import plain
from cli.tuning.jobs import Tuning, objective

_SIZE_INCHES = (10.0, 5.0)


def draw_tuning(tuning: Tuning, tried: Path, history: Path) -> None:
    """Write two charts of a tuning job, at least one of whose training jobs has a result.

    `tried`: parallel coordinates, a line for each training job through its objective and what it tried, dark for good.
    `history`: every training job's objective, and the best one so far.
    """
    tried.parent.mkdir(parents=True, exist_ok=True)
    study = _study(tuning)
    # A notebook's own charts keep their style.
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna calls these two experimental
        for draw, file in ((plot_parallel_coordinate, tried), (plot_optimization_history, history)):
            axes = draw(study, target_name=_label(tuning.metric))
            axes.set_title(_label(tuning.name))
            figure = cast(Figure, axes.get_figure())
            figure.set_size_inches(_SIZE_INCHES)
            figure.savefig(file, bbox_inches="tight")
            pyplot.close(figure)


def _study(tuning: Tuning) -> optuna.Study:
    """Return the search as optuna has it; a training job without a result is a failed trial."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds = tuning.config.get("ParameterRanges", {}).values()
    ranges = {given["Name"]: given for kind in kinds for given in kind}
    distributions = {_label(name): _distribution(tuning, given) for name, given in ranges.items()}
    study = optuna.create_study(direction=tuning.config["HyperParameterTuningJobObjective"]["Type"].lower())
    for job in tuning.jobs:
        value = objective(job)
        params = {_label(name): _value(job["TunedHyperParameters"][name]) for name in ranges}
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        study.add_trial(create_trial(state=state, value=value, params=params, distributions=distributions))
    return study


def _distribution(tuning: Tuning, given: dict[str, Any]) -> BaseDistribution:
    if "Values" in given:
        return CategoricalDistribution([_value(choice) for choice in given["Values"]])
    tried = [float(job["TunedHyperParameters"][given["Name"]]) for job in tuning.jobs]
    return FloatDistribution(min(tried), max(tried), log=given.get("ScalingType") == "Logarithmic")


def _value(text: str) -> float | str:
    """Return the number that a text is, so that numbers have their order; another text as it may be shown."""
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return _label(text)


def _label(text: str) -> str:
    return plain(text).replace("$", r"\$")  # or matplotlib would take it for a formula
