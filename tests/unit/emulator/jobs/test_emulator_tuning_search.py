"""What a tuning job tries next, and which of its training jobs it ends early."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

import pytest

from emulator.sagemaker.tuning.ranges import Ranges, combinations, read_ranges
from emulator.sagemaker.tuning.search import Hyperband, MedianRule, Search, Strategy, Trial


def ranges(**members: Any) -> Ranges:
    """One continuous range, called lr, from 0.001 to 0.1 unless told otherwise."""
    return read_ranges({"ContinuousParameterRanges": [number(**members)]})


def number(**members: Any) -> dict[str, str]:
    return {"Name": "lr", "MinValue": "0.001", "MaxValue": "0.1", **members}


def loss(text: str) -> float:
    """Smallest at 0.01."""
    return math.log10(float(text) / 0.01) ** 2


def run(search: Search, count: int) -> list[Trial]:
    trials: list[Trial] = []
    for index in range(count):
        values = search.propose(trials)
        assert values is not None
        trials.append(Trial(str(index), values, loss(values["lr"]), ended=True))
    return trials


def test_the_scale_is_logarithmic_where_the_range_spans_two_orders_of_magnitude() -> None:
    ends = ({}, {"MinValue": "0.002"}, {"MinValue": "0"})
    assert [ranges(**each)["lr"].log for each in ends] == [True, False, False]


@pytest.mark.parametrize("strategy", ["Bayesian", "Random", "Hyperband"])
def test_proposals_follow_from_the_seed_and_the_trials_alone(strategy: Strategy) -> None:
    first, again, other = (run(Search(strategy, ranges(), True, seed), 9) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len({trial.values["lr"] for trial in first}) == 9
    # A search that is taken up in the middle goes on as if it had never been put down.
    assert Search(strategy, ranges(), True, 1).propose(first[:6]) == first[6].values


def mean_loss(strategy: Strategy, seeds: range, after: int, count: int, observed: tuple[Trial, ...] = ()) -> float:
    searches = [Search(strategy, ranges(), True, seed, observed) for seed in seeds]
    return fmean(trial.objective or 0.0 for search in searches for trial in run(search, count)[after:])


def test_bayesian_search_learns_where_random_search_does_not_and_from_what_was_learned_before() -> None:
    after_ten = mean_loss("Bayesian", range(6), 10, 20)
    assert after_ten < 0.6 * mean_loss("Random", range(6), 10, 20)
    learned = tuple(run(Search("Bayesian", ranges(), True, 99), 30))
    first_five = mean_loss("Bayesian", range(6), 0, 5)
    assert mean_loss("Bayesian", range(6), 0, 5, learned) < 0.6 * first_five


def test_failures_and_values_of_another_range_do_not_disturb_the_search() -> None:
    search = Search("Bayesian", ranges(), True, 1)
    trials = run(search, 8)
    strange = [
        Trial("failed", {"lr": "0.05"}, None, ended=True),
        Trial("outside", {"lr": "5"}, 0.0, ended=True),
        Trial("other", {"momentum": "0.9"}, 0.0, ended=True),
    ]
    assert Search("Bayesian", ranges(), True, 1, observed=tuple(strange)).propose(trials) == search.propose(trials)


def test_a_grid_ends_when_it_has_been_searched() -> None:
    definition = {"CategoricalParameterRanges": [{"Name": n, "Values": list("ab")} for n in ("one", "two")]}
    grid = Search("Grid", read_ranges(definition), True, 1)
    assert combinations(grid.ranges) == [{"one": a, "two": b} for a in "ab" for b in "ab"]
    trials = [Trial(str(n), {}, None, ended=False) for n in range(4)]
    assert [grid.propose(trials[:n]) for n in range(5)] == [*combinations(grid.ranges), None]


def trial(name: str, *series: float, ended: bool = False) -> Trial:
    return Trial(name, {}, series[-1] if ended else None, ended, series)


def test_the_median_rule_compares_with_running_averages_of_the_same_epoch() -> None:
    # Running averages up to the second epoch: 2.5, 3.5 and 4.5.
    before = [trial(str(top), top, top - 1, top - 2, ended=True) for top in (3.0, 4.0, 5.0)]
    rule = MedianRule(minimize=True)
    assert rule.hopeless([*before, trial("good", 9.0, 3.5), trial("bad", 1.0, 3.6)]) == ["bad"]
    assert rule.hopeless([*before, trial("new")]) == []
    assert rule.hopeless([*before, trial("further than any", 9.0, 9.0, 9.0, 9.0)]) == []
    assert rule.hopeless([*before[:2], trial("bad", 9.0)]) == []
    assert MedianRule(minimize=False).hopeless([*before, trial("good", 9.0, 3.6), trial("bad", 9.0, 3.4)]) == ["bad"]


def hyperband(**members: Any) -> Hyperband:
    # One bracket, with rungs at 2 and 6 epochs.
    return Hyperband(**{"minimize": True, "min_resource": 2, "max_resource": 5, "name": "1", **members})


def test_hyperband_lets_only_the_best_beyond_a_rung() -> None:
    # The second and third are judged by what the first had at the rung, whether values come one by one or all at once.
    a, b, c = trial("a", 9.0, 1.0), trial("b", 0.1, 2.0), trial("c", 9.0, 0.5)
    band = hyperband()
    for seen in ([trial("a", 9.0)], [a], [a, trial("b", 0.1)]):
        assert band.hopeless(seen) == []
    assert band.hopeless([a, b, c]) == band.hopeless([a, b, c]) == hyperband().hopeless([a, b, c]) == ["b"]
    assert hyperband(minimize=False).hopeless([a, b, c]) == ["c"]


def test_hyperband_ends_nothing_before_the_least_and_everything_at_the_most() -> None:
    band = hyperband()
    assert band.hopeless([trial("a", 1.0, 1.0, 1.0, 1.0)]) == []
    assert band.hopeless([trial("a", 1.0, 1.0, 1.0, 1.0), trial("b", 9.0)]) == []
    assert band.hopeless([trial("a", 1.0, 1.0, 1.0, 1.0, 1.0)]) == ["a"]
    assert band.hopeless([trial("a", 1.0, 1.0, 1.0, 1.0, 1.0, ended=True)]) == []
