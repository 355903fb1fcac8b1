"""A network is its head after its backbone, for every family of networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.core.network import NetworkError, build, torchvision_models
from model.training.head.backbone import split

# One of every kind of classifier: a layer, one behind hidden layers, behind a normalisation, after a class token, a
# convolution. Sizes as small as each network takes.
FAMILIES = [
    ("resnet18", 32, 512), ("mobilenet_v3_small", 32, 1024), ("convnext_tiny", 32, 768), ("vit", 32, 64),
    ("squeezenet1_1", 64, 4608),
]  # fmt: skip


def small_vit() -> nn.Module:
    """The class behind torchvision's vit_b_16, which itself would take seconds."""
    return torchvision_models().VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=64, mlp_dim=64, num_classes=5
    )


@pytest.mark.parametrize(("architecture", "size", "features"), FAMILIES)
@torch.inference_mode()
def test_a_network_is_exactly_its_head_after_its_backbone(architecture, size, features):
    network = small_vit() if architecture == "vit" else build(architecture, 5)
    backbone, head = split(network, architecture, size)
    assert (network.training, backbone.training) == (True, False)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    images = torch.randn(3, 3, size, size)
    made = backbone(images)
    assert made.shape == (3, features)
    assert torch.equal(head.eval()(made), network.eval()(images))


class TwoBranches(nn.Module):
    """Its last layer is not all that comes after the features."""

    def __init__(self) -> None:
        super().__init__()
        self.shortcut, self.body, self.fc = nn.Linear(48, 5), nn.Linear(48, 8), nn.Linear(8, 5)

    def forward(self, batch):
        flat = batch.flatten(1)
        return self.fc(self.body(flat)) + self.shortcut(flat)


def test_a_network_that_does_not_come_apart_is_refused():
    with pytest.raises(NetworkError, match="two-branches cannot be split"):
        split(TwoBranches(), "two-branches", 4)
