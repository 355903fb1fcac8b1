from __future__ import annotations

import pytest
import torch
from torch import nn

from model.core.network import NetworkError, build
from model.training.loop.optimization import freeze, parameter_groups, stages

ARCHITECTURES = ("resnet9", "resnet18", "mobilenet_v3_small", "efficientnet_b0", "vit_b_16", "densenet121", "swin_t")


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


def test_weight_decay_leaves_biases_and_normalisation_alone():
    network = small_network()
    decayed, free = parameter_groups(network, lr=0.1, weight_decay=0.1, lr_decay=1)
    assert {id(p) for p in decayed["params"]} == {id(network[0].weight), id(network[5].weight)}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0)
    assert len(decayed["params"]) + len(free["params"]) == len(list(network.parameters()))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_is_trained_once_and_the_classifier_fastest(architecture):
    with torch.device("meta"):
        network = build(architecture, 5)
    groups = parameter_groups(network, lr=0.1, weight_decay=0.1, lr_decay=0.5)
    trained = [id(p) for group in groups for p in group["params"]]
    assert sorted(trained) == sorted(id(p) for p in network.parameters())
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    by_depth = [rates[id(p)] for p in network.parameters()]
    assert by_depth[-1] == 0.1 == max(by_depth)
    assert by_depth[0] == min(by_depth) == pytest.approx(0.1 * 0.5 ** (len(set(by_depth)) - 1))
    assert len(set(by_depth)) >= 4


def test_the_stages_of_a_resnet_are_the_ones_its_authors_named():
    with torch.device("meta"):
        network = build("resnet18", 5)
    assert [type(stage[0]).__name__ for stage in stages(network)] == [
        "Conv2d", "BatchNorm2d", "Sequential", "Sequential", "Sequential", "Sequential", "Linear",
    ]  # fmt: skip


def test_frozen_stages_keep_their_weights_and_what_is_left_is_trained():
    network = small_network()
    frozen = freeze(network, 1)
    assert [name for name, p in network.named_parameters() if p.requires_grad] == ["5.weight", "5.bias"]
    assert frozen == ["0", "1", "2", "3", "4"]


def test_more_stages_than_there_are_cannot_be_trained():
    with pytest.raises(NetworkError, match=r"has 3 stages; --train-stages 4"):
        freeze(small_network(), 4)
