"""From a decoded image to the network's input: the one home of preprocessing.

Training's validation, the test at its end and the server all call `Preprocessing`, so the accuracy measured offline is
the accuracy that callers get. Only numpy and Pillow are needed: the serving process does not import torch for this.
What only training does to images is in `augment.py`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from .artifact import ModelCard

# The statistics of ImageNet; any constants near the data's serve a network trained from scratch.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to `resize_size`, cut the centre of `input_size`, normalise.

    Mean and standard deviation are per channel (red, green, blue), for values scaled to 0-1. The interpolation is one
    of `artifact.INTERPOLATIONS`.
    """

    input_size: int
    resize_size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"

    @classmethod
    def of(cls, card: ModelCard) -> Self:
        """Return a model's own."""
        return cls(**{field.name: getattr(card, field.name) for field in dataclasses.fields(cls)})

    def at(self, input_size: int) -> Self:
        """Return the same for another size of the network's input."""
        return dataclasses.replace(
            self, input_size=input_size, resize_size=round(input_size * self.resize_size / self.input_size)
        )

    def crop(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Return the centre of an RGB image, uint8 [input_size, input_size, 3]."""
        # Resizing only the part that is kept gives the same pixels as resizing all and cutting, and an image of
        # 1 x 50,000 pixels does not become one of 72 x 3,600,000 on the way.
        side = min(image.size) * self.input_size / self.resize_size
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        method = Image.Resampling[self.interpolation.upper()]
        return np.asarray(image.resize((self.input_size, self.input_size), method, box=box))

    @property
    def scale_and_offset(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return what bytes are multiplied by, and what is then added, float32 [3] each."""
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        return (1.0 / (255.0 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def normalise(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Turn bytes, uint8 [..., height, width, 3], into the network's numbers, float32 [..., 3, height, width]."""
        scale, offset = self.scale_and_offset
        values = np.multiply(pixels, scale, dtype=np.float32)
        values += offset
        return np.ascontiguousarray(np.moveaxis(values, -1, -3))

    def __call__(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """Return the network's input, float32 [3, input_size, input_size], for an RGB image."""
        return self.normalise(self.crop(image))
