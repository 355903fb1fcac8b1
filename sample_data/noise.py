"""Smooth random fields, computed once as seamless tiles and looked up wherever something must not look drawn."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

TILE = 256
_MASK = TILE - 1


@cache
def tile(grain_x: float, grain_y: float, seed: int) -> Field:
    """A seamless [256, 256] field of mean 0 and variance 1 whose features measure about grain_x by grain_y cells."""
    rng = np.random.default_rng([0x5EED, seed])
    frequency = np.fft.fftfreq(TILE)
    window = np.exp(-2.0 * ((frequency * grain_x)[None, :] ** 2 + (frequency * grain_y)[:, None] ** 2))
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TILE, TILE))) * window).real
    return ((field - field.mean()) / field.std()).astype(np.float32)


def blotches() -> Field:
    """Features of about 16 cells: blotch borders, clouds, shrubs."""
    return tile(16.0, 16.0, seed=0)


def grain() -> Field:
    """Features of about 4 cells: curls, gravel."""
    return tile(4.0, 4.0, seed=1)


def strands() -> Field:
    """Features 3 cells across and 26 along the second axis: hair, grass."""
    return tile(3.0, 26.0, seed=2)


def looked_up(field: Field, x: NDArray[np.floating], y: NDArray[np.floating]) -> Field:
    """Values of a tile at positions in cells, wrapping around."""
    return field[y.astype(np.int32) & _MASK, x.astype(np.int32) & _MASK]


def covering(field: Field, rng: np.random.Generator, width: int, height: int, step: float = 1.0) -> Field:
    """A [height, width] piece from anywhere in the endlessly repeated tile; a pixel is `step` cells."""
    x, y = rng.integers(0, TILE, 2)
    return looked_up(field, np.arange(width) * step + x, (np.arange(height) * step + y)[:, None])
