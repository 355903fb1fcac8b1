"""What training does to an image so that the network learns the dog and not the photograph.

A batch is cropped, scaled, turned, mirrored and recoloured at once by torch's vectorised operations, on its device: on
two cores this takes a few percent of a training step, where doing it image by image would take a third.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...core.transforms import Preprocessing

# Weights of the channels in perceived brightness, ITU-R BT.601, as Pillow's conversion to "L" uses them.
_LUMA = (0.299, 0.587, 0.114)

# Of the images that each thread of a CPU works on at the same time; larger pieces leave its cache.
_BYTES_AT_ONCE = 1024 * 1024


@dataclass(frozen=True)
class Variations:
    """How each image of a batch is varied, one value per image in every tensor [N].

    Attributes
    ----------
    area, ratio : share of the image's area that the crop shows; the crop's width / height
    across, down : where the crop lies, from -1 (left, top) to 1
    mirror, angle : -1 when mirrored, otherwise 1; radians
    warmth, brightness, saturation, contrast : factors around 1
    """

    area: Tensor
    ratio: Tensor
    across: Tensor
    down: Tensor
    mirror: Tensor
    angle: Tensor
    warmth: Tensor
    brightness: Tensor
    saturation: Tensor
    contrast: Tensor

    def __getitem__(self, share: slice) -> Variations:
        return Variations(**{name: values[share] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Augmentation:
    """How far the images are varied. All draws are uniform (the aspect ratio's is uniform in its logarithm)."""

    preprocessing: Preprocessing  # gives the size and the normalisation of the result
    scale: tuple[float, float] = (0.5, 1.0)  # least and largest share of the image's area that a crop shows
    ratio: float = 4 / 3  # crops are between 1/ratio and ratio times as wide as high
    rotation: float = 5.0  # degrees either way
    brightness: float = 0.15  # relative change either way, as the two below
    contrast: float = 0.15
    saturation: float = 0.15
    temperature: float = 0.03  # relative gain of red over blue, or of blue over red: the colour of the light

    def __call__(self, pixels: Tensor, aspects: Tensor, variations: Variations) -> Tensor:
        """Return one varied, normalised view of every image, float32 [N, 3, S, S], with the channels last in memory.

        `pixels` are whole images, squeezed to one size, uint8 [N, H, W, 3]; `aspects`, float32 [N], undo the squeezing.
        """
        size, device = self.preprocessing.input_size, pixels.device
        transforms = _crops(aspects.cpu(), variations).to(device)
        colours = _colours(variations).to(device)
        views = torch.empty((len(pixels), 3, size, size), device=device, memory_format=torch.channels_last)
        # A few images at a time stay in the processor's cache: a third of the time at 224 pixels.
        per_thread = max(1, _BYTES_AT_ONCE * torch.get_num_threads() // (4 * pixels[:1].numel()))
        at_once = len(pixels) if pixels.is_cuda else per_thread
        for first in range(0, len(pixels), at_once):
            part = slice(first, first + at_once)
            whole = pixels[part].permute(0, 3, 1, 2).float()
            grid = _affine_grid(transforms[part], size)
            cut = functional.grid_sample(whole, grid, padding_mode="reflection", align_corners=False)
            self._recolour(cut, colours[part], out=views[part])
        return views

    def draw(self, count: int, generator: torch.Generator) -> Variations:
        """Draw how the images of a whole batch are varied, so that a view depends on no device and no world size."""

        def uniform(low: float, high: float) -> Tensor:
            return torch.empty(count).uniform_(low, high, generator=generator)

        def factor(strength: float) -> Tensor:
            return uniform(1 - strength, 1 + strength)

        return Variations(
            area=uniform(*self.scale),
            ratio=uniform(-math.log(self.ratio), math.log(self.ratio)).exp(),
            across=uniform(-1, 1),
            down=uniform(-1, 1),
            mirror=torch.randint(0, 2, (count,), generator=generator) * 2 - 1,
            angle=uniform(-math.radians(self.rotation), math.radians(self.rotation)),
            warmth=factor(self.temperature),
            brightness=factor(self.brightness),
            saturation=factor(self.saturation),
            contrast=factor(self.contrast),
        )

    def _recolour(self, views: Tensor, colours: Tensor, *, out: Tensor) -> None:
        """Vary colours from 0 to 255 as `_colours` says, and normalise them: a matrix and an offset per image."""
        device = views.device
        luma = torch.tensor(_LUMA, device=device).expand(1, 3, 3)
        mean = torch.tensor(self.preprocessing.mean, device=device).view(1, 3, 1)
        std = torch.tensor(self.preprocessing.std, device=device).view(1, 3, 1)
        gains, saturation, contrast = colours[:, None, :3] / 255, colours[:, 3, None, None], colours[:, 4, None, None]

        flat = views.flatten(start_dim=2)
        # Saturation moves a colour to or from its grey, contrast to or from the mean grey of the view.
        matrix = torch.lerp(luma, torch.eye(3, device=device), saturation) * gains
        grey = (luma * gains) @ flat.mean(dim=2, keepdim=True)
        varied = torch.baddbmm(((1 - contrast) * grey - mean) / std, contrast * matrix / std, flat).view_as(views)
        torch.clamp(varied, (-mean / std)[..., None], ((1 - mean) / std)[..., None], out=out)


def _crops(aspects: Tensor, variations: Variations) -> Tensor:
    """Return affine transforms, [N, 2, 3], from a view's coordinates to those of its image, all from -1 to 1."""
    area, ratio = variations.area, variations.ratio
    # As shares of the image's width and height: their product is the area, their quotient in pixels the ratio.
    width, height = (area * ratio / aspects).sqrt(), (area * aspects / ratio).sqrt()
    # A crop that does not fit into its image is made smaller, not squeezed.
    fit = torch.maximum(width, height).clamp(min=1)
    width, height = width / fit, height / fit
    left_right, up_down = (1 - width) * variations.across, (1 - height) * variations.down
    cos, sin = variations.angle.cos(), variations.angle.sin()
    # The aspect is there because the turn is one of the real image and not of the squeezed one.
    return torch.stack(
        [
            torch.stack([width * cos * variations.mirror, -height * sin / aspects, left_right], dim=1),
            torch.stack([width * sin * aspects * variations.mirror, height * cos, up_down], dim=1),
        ],
        dim=1,
    )


def _colours(variations: Variations) -> Tensor:
    """Return how the colours change, [N, 5]: the gains of red, green and blue, then saturation and contrast."""
    warmth = variations.warmth
    gains = variations.brightness[:, None] * torch.stack([warmth, torch.ones_like(warmth), 2 - warmth], dim=1)
    return torch.cat([gains, variations.saturation[:, None], variations.contrast[:, None]], dim=1)


def _affine_grid(transforms: Tensor, size: int) -> Tensor:
    """Return what `functional.affine_grid` does with `align_corners=False`, [N, S, S, 2], in a tenth of its time."""
    centres = (2 * torch.arange(size, device=transforms.device) + 1) / size - 1
    across = transforms[:, :, :1] * centres
    down = transforms[:, :, 1:2] * centres + transforms[:, :, 2:]
    return (down[:, :, :, None] + across[:, :, None, :]).permute(0, 2, 3, 1)
