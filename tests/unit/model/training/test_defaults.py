"""What a training does for each family of networks when nobody says it: learning rate, weight decay, what decays."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import nn

from model.core.network import build, check_input_size, made_for
from model.training.arguments import parse_arguments
from model.training.defaults import TABLE, defaults_for
from model.training.loop.state import parameter_groups

# One of each family of torchvision, with what it normalises by.
FAMILIES = {
    **dict.fromkeys(("alexnet", "squeezenet1_1", "vgg11"), "nothing"),
    **dict.fromkeys(("convnext_tiny", "maxvit_t", "swin_t", "swin_v2_t", "vit_b_16"), "layers"),
    **dict.fromkeys(("densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3"), "batches"),
    **dict.fromkeys(("mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "resnext50_32x4d"), "batches"),
    **dict.fromkeys(("shufflenet_v2_x0_5", "vgg11_bn", "wide_resnet50_2"), "batches"),
}
NO_MATRICES = {"class_token", "pos_embedding", "relative_position_bias_table", "layer_scale", "logit_scale"}


@functools.cache
def network_of(architecture: str) -> nn.Module:
    """Without weights, except for RegNet, which computes its widths with tensors."""
    with torch.device("cpu" if architecture.startswith("regnet") else "meta"):
        return build(architecture, 5)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_family_takes_the_size_that_it_is_made_for(architecture):
    network = network_of(architecture)
    with next(network.parameters()).device:
        check_input_size(network, architecture, made_for(architecture).input_size)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_matrices_and_kernels_decay_and_nothing_else(architecture):
    network = network_of(architecture)
    groups = parameter_groups(network, lr=0.1, weight_decay=0.1, lr_decay=1)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        free = parameter.ndim < 2 or name.rpartition(".")[2] in NO_MATRICES
        assert decay[id(parameter)] == (0 if free else 0.1), name


def test_families_are_told_apart_by_their_normalisation_which_decides_the_learning_rate():
    found = {}
    for architecture in FAMILIES:
        kinds = {type(module) for module in network_of(architecture).modules()}
        found[architecture] = "layers" if nn.LayerNorm in kinds else "batches" if nn.BatchNorm2d in kinds else "nothing"
    assert found == FAMILIES
    for weights in ("default", "s3://bucket/weights/x.pt"):
        rows = {(k, *(defaults_for(name, w, "finetune") for w in ("none", weights))) for name, k in FAMILIES.items()}
        assert len(rows) == 3
        assert all(tuned.lr < random.lr for _, random, tuned in rows), "fine-tuning is gentler"


@pytest.mark.parametrize(
    ("argv", "lr", "weight_decay"),
    [
        ("", 0.01, 0.1),  # the demo's
        ("--weights x.pt", 0.003, 0.1),
        ("--architecture resnet50 --weights default", 0.0005, 0.05),
        ("--architecture resnet50 --weights default --lr 0.01", 0.01, 0.05),
        ("--architecture vit_b_16 --weight-decay 0", 0.0003, 0),
        ("--architecture vit_b_16 --weights default --mode head", 0.01, 0.1),
    ],
)
def test_what_the_command_line_leaves_out_is_a_number_afterwards(argv, lr, weight_decay):
    config = parse_arguments(["--data-dir", ".", *argv.split()], {})
    assert (config.recipe.lr, config.recipe.weight_decay) == (lr, weight_decay)
    assert config.recorded()["lr"] == lr


def test_the_documentation_has_the_table():
    text = (Path(__file__).parents[4] / "docs" / "training.md").read_text()
    for row in TABLE:
        low, high = row.search_lr
        assert f"| {row.family} | {row.lr:g} | {row.weight_decay:g} | {low:g} to {high:g} |" in text
