"""A residual network of nine layers for small images and small machines: it starts narrow and halves late.

`docs/measurements/training.md` compares it with torchvision's networks, which are made for 224 pixels.
"""

from __future__ import annotations

from torch import Tensor, nn

# Channels after the first full layer. Each halving of the image but the first doubles them, so that every stage costs
# the same.
WIDTH = 24


class Residual(nn.Module):
    """Two layers whose result is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_layer(channels, channels), _layer(channels, channels))

    def forward(self, batch: Tensor) -> Tensor:
        """Return [N, channels, H, W] for the same."""
        change: Tensor = self.layers(batch)
        return batch + change


def resnet9(classes: int) -> nn.Sequential:
    """Make the network: float32 [N, 3, H, W], at least 16 x 16, to logits [N, classes]."""
    return nn.Sequential(
        _layer(3, WIDTH // 2, stride=2),
        _layer(WIDTH // 2, WIDTH),
        nn.MaxPool2d(2),
        Residual(WIDTH),
        _layer(WIDTH, 2 * WIDTH),
        nn.MaxPool2d(2),
        _layer(2 * WIDTH, 4 * WIDTH),
        nn.MaxPool2d(2),
        Residual(4 * WIDTH),
        # The strongest answer anywhere counts, because a dog may fill a corner only.
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(4 * WIDTH, classes),
    )


def _layer(channels: int, width: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
