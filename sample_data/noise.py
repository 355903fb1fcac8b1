"""Smooth random fields: seamless tiles, looked up wherever something must not look drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

TILE = 256


def _tile(wide: int, high: int) -> Field:
    """A field [256, 256] of mean 0 and variance 1 whose features measure about so many cells."""
    frequency = np.fft.fftfreq(TILE)
    window = np.exp(-2.0 * ((frequency * wide)[None, :] ** 2 + (frequency * high)[:, None] ** 2))
    field = np.fft.ifft2(np.fft.fft2(np.random.default_rng([wide, high]).standard_normal((TILE, TILE))) * window).real
    return np.asarray((field - field.mean()) / field.std(), np.float32)


WHITE = _tile(0, 0)
BLOTCHES = _tile(16, 16)  # borders of markings, clouds
GRAIN = _tile(4, 4)  # curls, gravel
STRANDS = _tile(3, 26)  # hair


def looked_up(field: Field, x: NDArray[np.floating], y: NDArray[np.floating]) -> Field:
    """Values of a tile at positions in cells, wrapping around."""
    values: Field = field[y.astype(np.int32) & (TILE - 1), x.astype(np.int32) & (TILE - 1)]
    return values


def covering(field: Field, rng: np.random.Generator, width: int, height: int, step: float = 1.0) -> Field:
    """A [height, width] piece from anywhere in the endlessly repeated tile; a pixel is `step` cells."""
    x, y = rng.integers(0, TILE, 2)
    return looked_up(field, np.arange(width) * step + x, (np.arange(height) * step + y)[:, None])
