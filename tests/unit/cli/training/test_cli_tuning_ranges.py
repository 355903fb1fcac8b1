"""The ranges of a search: the settings' own, and learning rates by the families of the networks that it trains."""

from __future__ import annotations

import pytest

from cli.tuning.request import parameter_ranges
from infra.tables.tuning import ChoiceRange, NumberRange, TuningSettings

TUNED = {"weights": "s3://bucket/weights/x.pt", "architecture": "resnet50"}
MIXED = (
    ChoiceRange(name="architecture", values=("resnet9", "vit_b_16")),
    ChoiceRange(name="mode", values=("finetune",)),
)


@pytest.mark.parametrize(
    ("configured", "given", "settings", "rates"),
    [
        ({"architecture": "vit_b_16"}, {}, {}, ("3e-05", "0.003")),
        ({}, TUNED, {}, ("5e-05", "0.005")),
        (TUNED, {"mode": "head"}, {}, ("0.001", "0.1")),
        ({"architecture": "alexnet"}, {}, {"choices": MIXED}, ("3e-05", "0.1")),  # all that may be trained
        ({}, {"architecture": "resnet18"}, {"choices": MIXED}, ("0.0001", "0.01")),
        (TUNED, {}, {"learning_rate_min": 0.5, "learning_rate_max": 0.7}, ("0.5", "0.7")),
    ],
)
def test_learning_rates_are_searched_where_the_family_trains(configured, given, settings, rates):
    ranges = parameter_ranges(TuningSettings(**settings), given, configured)
    (found,) = ranges["ContinuousParameterRanges"]
    assert (found["MinValue"], found["MaxValue"]) == rates


def test_the_settings_can_add_ranges():
    settings = TuningSettings(
        numbers=(
            NumberRange(name="weight_decay", min=0.01, max=1.0, scale="logarithmic"),
            NumberRange(name="patience", min=1.0, max=9.0, integer=True),
        ),
        choices=(ChoiceRange(name="architecture", values=("resnet9", "resnet18")),),
    )
    ranges = parameter_ranges(settings, {"lr": "1", "batch-size": "1"})
    assert list(ranges.values()) == [
        [{"Name": "weight-decay", "MinValue": "0.01", "MaxValue": "1.0", "ScalingType": "Logarithmic"}],
        [{"Name": "patience", "MinValue": "1", "MaxValue": "9", "ScalingType": "Linear"}],
        [{"Name": "architecture", "Values": ["resnet9", "resnet18"]}],
    ]
