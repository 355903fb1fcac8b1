"""What training does to a picture so that the network learns the dog and not the photograph.

A batch is cropped, scaled, turned, mirrored and recoloured at once by torch's vectorised operations, on whatever
device the batch is on: on two cores this takes a few percent of a training step, where doing it picture by picture
would take a third.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..transforms import Preprocessing

# Weights of the channels in perceived brightness, ITU-R BT.601, as Pillow's conversion to "L" uses them.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Augmentation:
    """How far the pictures are varied. All draws are uniform (the aspect ratio's is uniform in its logarithm).

    Attributes
    ----------
    preprocessing : Preprocessing
        Gives the size and the normalisation of the result.
    scale : tuple of float
        Least and largest share of the picture's area that a crop shows.
    ratio : float
        Crops are between 1/ratio and ratio times as wide as high.
    rotation : float
        Largest angle either way, in degrees.
    brightness, contrast, saturation : float
        Largest relative change either way.
    temperature : float
        Largest relative gain of red over blue, or of blue over red: the colour of the light.
    """

    preprocessing: Preprocessing
    scale: tuple[float, float] = (0.5, 1.0)
    ratio: float = 4 / 3
    rotation: float = 5.0
    brightness: float = 0.15
    contrast: float = 0.15
    saturation: float = 0.15
    temperature: float = 0.03

    def __call__(self, pixels: Tensor, aspects: Tensor, generator: torch.Generator) -> Tensor:
        """Return one varied, normalised view of every picture.

        Parameters
        ----------
        pixels : Tensor
            uint8 [N, H, W, 3], each a whole picture squeezed to one size.
        aspects : Tensor
            float32 [N], width / height of the original pictures, so that nothing stays squeezed.
        generator : torch.Generator
            Source of the randomness, on the CPU: the same state gives the same views on every device.

        Returns
        -------
        Tensor
            float32 [N, 3, S, S], in the channels-last layout of memory.
        """
        size = self.preprocessing.input_size
        transforms = self._crops(aspects.cpu(), generator).to(pixels.device)
        grid = functional.affine_grid(transforms, [len(pixels), 3, size, size], align_corners=False)
        whole = pixels.permute(0, 3, 1, 2).float()
        views = functional.grid_sample(whole, grid, padding_mode="reflection", align_corners=False)
        return self._recolour(views, generator).contiguous(memory_format=torch.channels_last)

    def _crops(self, aspects: Tensor, generator: torch.Generator) -> Tensor:
        """Draw affine transforms, [N, 2, 3], from a view's coordinates to those of its picture, all from -1 to 1."""

        def uniform(low: float, high: float) -> Tensor:
            return torch.empty(len(aspects)).uniform_(low, high, generator=generator)

        area = uniform(*self.scale)
        ratio = uniform(-math.log(self.ratio), math.log(self.ratio)).exp()
        # As shares of the picture's width and height: their product is the area, their quotient in pixels the ratio.
        width, height = (area * ratio / aspects).sqrt(), (area * aspects / ratio).sqrt()
        # A crop that does not fit into its picture is made smaller, not squeezed.
        fit = torch.maximum(width, height).clamp(min=1)
        width, height = width / fit, height / fit
        left_right, up_down = (1 - width) * uniform(-1, 1), (1 - height) * uniform(-1, 1)
        mirror = torch.randint(0, 2, (len(aspects),), generator=generator) * 2 - 1
        angle = uniform(-math.radians(self.rotation), math.radians(self.rotation))
        cos, sin = angle.cos(), angle.sin()
        # The aspect is there because the turn is one of the real picture and not of the squeezed one.
        return torch.stack(
            [
                torch.stack([width * cos * mirror, -height * sin / aspects, left_right], dim=1),
                torch.stack([width * sin * aspects * mirror, height * cos, up_down], dim=1),
            ],
            dim=1,
        )

    def _recolour(self, views: Tensor, generator: torch.Generator) -> Tensor:
        """Vary the colours of views with values 0 to 255 and normalise them.

        All of this is linear in a pixel's three values, so that it is one matrix and one offset per picture.
        """
        count, device = len(views), views.device

        def factor(strength: float) -> Tensor:
            return torch.empty(count, 1, 1).uniform_(1 - strength, 1 + strength, generator=generator).to(device)

        warmth = factor(self.temperature)
        gains = factor(self.brightness) * torch.cat([warmth, torch.ones_like(warmth), 2 - warmth], dim=2) / 255
        luma = torch.tensor(_LUMA, device=device).expand(1, 3, 3)
        mean = torch.tensor(self.preprocessing.mean, device=device).view(1, 3, 1)
        std = torch.tensor(self.preprocessing.std, device=device).view(1, 3, 1)

        flat = views.flatten(start_dim=2)
        # Saturation moves a colour to or from its grey, contrast to or from the mean grey of the view.
        colours = torch.lerp(luma, torch.eye(3, device=device), factor(self.saturation)) * gains
        grey = (luma * gains) @ flat.mean(dim=2, keepdim=True)
        contrast = factor(self.contrast)
        varied = torch.baddbmm(((1 - contrast) * grey - mean) / std, contrast * colours / std, flat)
        return varied.clamp_(-mean / std, (1 - mean) / std).view_as(views)
