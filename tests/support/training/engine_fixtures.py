"""A small network, a small data set that it can learn, and a recipe."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from model.core.transforms import Preprocessing
from model.training.config import Recipe
from model.training.data.decoded import Images

PREPROCESSING = Preprocessing(16, 16)
RECIPE = Recipe(epochs=6, batch_size=8, lr=0.01, weight_decay=0.01, label_smoothing=0.0, patience=0, seed=3)
CPU = torch.device("cpu")


def brightness(count: int, seed: int, classes: int = 3) -> Images:
    """Images whose class is how bright they are."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    pixels = (targets * 80 + 20)[:, None, None, None] + random.integers(0, 40, (count, 16, 16, 3))
    return Images(pixels.astype(np.uint8), np.ones(count, np.float32), targets.astype(np.int64))


def small_network(seed: int = 0, classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    )
