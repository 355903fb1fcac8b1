"""What training does to an image so that the network learns the dog and not the photograph.

A batch is cropped, scaled, turned, mirrored and recoloured at once by torch's vectorised operations, on its device: on
two cores this takes a few percent of a training step, where doing it image by image would take a third.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from ...core.network import torchvision_models
from ...core.transforms import Preprocessing
from ..config import Recipe

# Weights of the channels in perceived brightness, ITU-R BT.601, as Pillow's conversion to "L" uses them.
_LUMA = (0.299, 0.587, 0.114)

# TrivialAugmentWide (Müller and Hutter 2021) gives each image one of these operations at one of 31 strengths, up to the
# ones below; order, strengths and the centre of shearing are torchvision's, and so are the functions of the tones.
_TONES = ("adjust_sharpness", "posterize", "solarize", "autocontrast", "equalize")
_OPERATIONS = (
    "identity", "shear x", "shear y", "shift x", "shift y", "rotate", "brightness", "saturation", "contrast", *_TONES
)  # fmt: skip
_STRENGTHS = 31
_MOST_SHEAR, _MOST_PIXELS, _MOST_DEGREES, _MOST_CHANGE = 0.99, 32, 135.0, 0.99
_COLOURS = ("brightness", "contrast", "saturation", "temperature")

# Of the images that each thread of a CPU works on at the same time; larger pieces leave its cache.
_BYTES_AT_ONCE = 1024 * 1024


@dataclass(frozen=True)
class Variations:
    """How each image of a batch is varied, one value per image in every tensor [N], `warp` apart.

    Attributes
    ----------
    area, ratio : share of the image's area that the crop shows; the crop's width / height
    across, down : where the crop lies, from -1 (left, top) to 1
    mirror, angle : -1 when mirrored, otherwise 1; radians
    warmth, brightness, saturation, contrast : factors around 1
    warp : [N, 2, 3], a further affine transform of the coordinates of the view
    tone, level : which of torchvision's operations on colours is done, by its place in `_OPERATIONS`, and how (0: none)
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
    warp: Tensor
    tone: Tensor
    level: Tensor

    def __getitem__(self, share: slice) -> Variations:
        return Variations(**{name: values[share] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Augmentation:
    """How far the images are varied. All draws are uniform (the aspect ratio's is uniform in its logarithm).

    `policy` is one of `config.AUGMENT`: "trivial" adds an operation of TrivialAugmentWide to each image (what it moves
    in from outside is the image's reflection); "none" only normalises images of `decode_for_serving`.
    """

    preprocessing: Preprocessing  # gives the size and the normalisation of the result
    policy: str = "standard"
    mirror: bool = True  # half of the images
    scale: tuple[float, float] = (0.5, 1.0)  # least and largest share of the image's area that a crop shows
    ratio: float = 4 / 3  # crops are between 1/ratio and ratio times as wide as high
    rotation: float = 5.0  # degrees either way
    brightness: float = 0.15  # relative change either way, as the two below
    contrast: float = 0.15
    saturation: float = 0.15
    temperature: float = 0.03  # relative gain of red over blue, or of blue over red: the colour of the light

    @classmethod
    def of(cls, preprocessing: Preprocessing, recipe: Recipe) -> Augmentation:
        """Return what the options of a training ask for."""
        own = recipe.augment == "standard"  # the other policies have turns and colours of another kind, or none
        colours = {name: own * recipe.color * getattr(cls, name) for name in _COLOURS}
        turn = own * recipe.rotation
        scale = (recipe.crop_scale, 1.0)
        return cls(preprocessing, recipe.augment, recipe.mirror == "on", scale, rotation=turn, **colours)

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
            cut = whole
            if self.policy != "none":
                grid = _affine_grid(transforms[part], size)
                cut = functional.grid_sample(whole, grid, padding_mode="reflection", align_corners=False)
            _change_tones(cut, variations[part])
            self._recolour(cut, colours[part], out=views[part])
        return views

    def draw(self, count: int, generator: torch.Generator) -> Variations:
        """Draw how the images of a whole batch are varied, so that a view depends on no device and no world size."""

        def uniform(low: float, high: float) -> Tensor:
            return torch.empty(count).uniform_(low, high, generator=generator)

        def factor(strength: float) -> Tensor:
            return uniform(1 - strength, 1 + strength)

        drawn = Variations(
            area=uniform(*self.scale),
            ratio=uniform(-math.log(self.ratio), math.log(self.ratio)).exp(),
            across=uniform(-1, 1),
            down=uniform(-1, 1),
            mirror=torch.randint(0, 2, (count,), generator=generator) * 2 - 1 if self.mirror else torch.ones(count),
            angle=uniform(-math.radians(self.rotation), math.radians(self.rotation)),
            warmth=factor(self.temperature),
            brightness=factor(self.brightness),
            saturation=factor(self.saturation),
            contrast=factor(self.contrast),
            warp=torch.eye(2, 3).expand(count, 2, 3),
            tone=torch.zeros(count, dtype=torch.long),
            level=torch.zeros(count),
        )
        return self._draw_trivial(drawn, count, generator) if self.policy == "trivial" else drawn

    def _draw_trivial(self, drawn: Variations, count: int, generator: torch.Generator) -> Variations:
        """Draw an operation of TrivialAugmentWide for every image."""
        operation = torch.randint(len(_OPERATIONS), (count,), generator=generator)
        strength = torch.randint(_STRENGTHS, (count,), generator=generator) / (_STRENGTHS - 1)
        signed = strength * (torch.randint(2, (count,), generator=generator) * 2 - 1)

        def by(name: str, values: Tensor) -> Tensor:
            return torch.where(operation == _OPERATIONS.index(name), values, 0.0)

        # The operations are one for each image, so for each of these at most one term is not zero.
        shear_x, shear_y = by("shear x", _MOST_SHEAR * signed), by("shear y", _MOST_SHEAR * signed)
        pixels = -2 / self.preprocessing.input_size * (_MOST_PIXELS * signed).trunc()
        turn = by("rotate", math.radians(_MOST_DEGREES) * signed)
        warp = [
            torch.stack([turn.cos(), shear_x - turn.sin(), shear_x + by("shift x", pixels)], dim=1),
            torch.stack([shear_y + turn.sin(), turn.cos(), shear_y + by("shift y", pixels)], dim=1),
        ]
        change, bits = _MOST_CHANGE * signed, 8 - (6 * strength).round()
        return replace(
            drawn,
            warp=torch.stack(warp, dim=1),
            brightness=1 + by("brightness", change),
            saturation=1 + by("saturation", change),
            contrast=1 + by("contrast", change),
            tone=operation.where(operation >= len(_OPERATIONS) - len(_TONES), 0),
            level=by("adjust_sharpness", 1 + change) + by("posterize", bits) + by("solarize", 255 * (1 - strength)),
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
    turned = torch.stack(
        [
            torch.stack([width * cos * variations.mirror, -height * sin / aspects], dim=1),
            torch.stack([width * sin * aspects * variations.mirror, height * cos], dim=1),
        ],
        dim=1,
    )
    transforms = turned @ variations.warp
    transforms[:, :, 2] += torch.stack([left_right, up_down], dim=1)
    return transforms


def _change_tones(views: Tensor, variations: Variations) -> None:
    """Do torchvision's operations on the views that have one, float [n, 3, S, S] from 0 to 255, in place."""
    if not variations.tone.any():
        return
    torchvision_models()  # makes torchvision importable
    from torchvision.transforms.v2 import functional as tones

    for index in variations.tone.nonzero().flatten().tolist():
        name, level = _OPERATIONS[int(variations.tone[index])], float(variations.level[index])
        arguments = {"posterize": [int(level)], "autocontrast": [], "equalize": []}.get(name, [level])
        views[index] = getattr(tones, name)(views[index].round().to(torch.uint8), *arguments)


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
