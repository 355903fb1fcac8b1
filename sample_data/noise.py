"""Smooth random fields, computed once as seamless tiles and looked up wherever something must not look drawn."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

TILE = 256
_MASK = TILE - 1


@cache
def tile(grain_x: float, grain_y: float, seed: int = 0) -> NDArray[np.float32]:
    """A seamless [256, 256] field of mean 0 and variance 1 whose features measure about grain_x by grain_y cells."""
    rng = np.random.default_rng([0x5EED, seed])
    frequency = np.fft.fftfreq(TILE)
    window = np.exp(-2.0 * ((frequency * grain_x)[None, :] ** 2 + (frequency * grain_y)[:, None] ** 2))
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TILE, TILE))) * window).real
    return ((field - field.mean()) / field.std()).astype(np.float32)


def blotches() -> NDArray[np.float32]:
    """Features of about 16 cells: blotch borders, clouds, shrubs."""
    return tile(16.0, 16.0)


def grain() -> NDArray[np.float32]:
    """Features of about 4 cells: curls, gravel."""
    return tile(4.0, 4.0, seed=1)


def strands() -> NDArray[np.float32]:
    """Features 3 cells across and 26 along the second axis: hair, grass."""
    return tile(3.0, 26.0, seed=2)


def looked_up(field: NDArray[np.float32], x: Floats, y: Floats) -> NDArray[np.float32]:
    """Values of a tile at positions in cells, wrapping around."""
    return field[y.astype(np.int32) & _MASK, x.astype(np.int32) & _MASK]


def covering(field: NDArray[np.float32], width: int, height: int, offset: tuple[int, int]) -> NDArray[np.float32]:
    """A [height, width] piece of the endlessly repeated tile."""
    rows = (np.arange(height) + offset[1]) & _MASK
    columns = (np.arange(width) + offset[0]) & _MASK
    return field[rows[:, None], columns]
