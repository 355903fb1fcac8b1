"""Batches whose images and classes are mixed in pairs: mixup and CutMix.

Both keep a network from being sure of what it has seen only once. Images are mixed with their neighbour in the
batch, whose order is random anyway, so that a worker needs no images of another worker's share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """How the images of one batch are mixed.

    Attributes
    ----------
    own : float
        The share of an image's own class in its target, 0 to 1; the rest is its neighbour's.
    box : tuple of float, or None
        CutMix: left, top, right and bottom of what the neighbour covers, as shares of the sides; the shares are
        rounded to pixels by `mix`. None: mixup, the weighted mean of both images.
    """

    own: float
    box: tuple[float, float, float, float] | None = None

    def mix(self, inputs: Tensor) -> tuple[Tensor, float]:
        """Mix a batch, float32 [N, 3, H, W]; return it with the share of the own class that it really shows."""
        partners = inputs[neighbours(len(inputs)).to(inputs.device)]
        if self.box is None:
            return torch.lerp(partners, inputs, self.own), self.own
        height, width = inputs.shape[2:]
        left, right = round(self.box[0] * width), round(self.box[2] * width)
        top, bottom = round(self.box[1] * height), round(self.box[3] * height)
        mixed = inputs.clone(memory_format=torch.preserve_format)
        mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return mixed, 1 - (right - left) * (bottom - top) / (width * height)


def neighbours(count: int) -> Tensor:
    """Return for each image of a batch the one that it is mixed with: 1 0 3 2 5 4 …; a last odd one is left alone."""
    index = torch.arange(count)
    return (index ^ 1).where(index ^ 1 < count, index)


def draw_mixture(mixup: float, cutmix: float, generator: torch.Generator) -> Mixture | None:
    """Draw how a batch is mixed.

    Parameters
    ----------
    mixup, cutmix : float
        The parameter alpha of the Beta distribution of the shares (mixup: Zhang et al. 2018, usual values 0.1 to 0.4;
        CutMix: Yun et al. 2019, usually 1); 0: off. With both, each is used for half of the batches.
    generator : torch.Generator

    Returns
    -------
    Mixture or None
        None when both are off, and then nothing is drawn.
    """
    if not mixup and not cutmix:
        return None
    # torch has no Beta distribution that takes a generator.
    random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    if mixup and (not cutmix or random.random() < 0.5):
        return Mixture(float(random.beta(mixup, mixup)))
    own = float(random.beta(cutmix, cutmix))
    half = math.sqrt(1 - own) / 2
    x, y = random.random(2)
    return Mixture(own, (max(0.0, x - half), max(0.0, y - half), min(1.0, x + half), min(1.0, y + half)))
