"""The colour of every visible point of a coat: the base colour, the markings over it, the hair's own texture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import noise
from .breeds import Coat, Colourway, Pattern
from .solids import Part

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Surface:
    """N visible points of a dog, in the coordinates that markings are described in.

    Trunk: along 0 (rump) to 1 (chest), side and up -1 to 1. Neck: along 0 (base) to 1 (head). Legs and tail: along 0
    (root) to 1 (tip), up is a leg's front. Head: along, side, up are x, y, z in radii of the skull. Ears: along 0 to 1.
    """

    part: NDArray[np.int64]
    along: Vector
    side: Vector
    up: Vector
    place: Vector  # [3, N], in the dog's frame: where the irregular patterns come from

    def on(self, *parts: Part) -> NDArray[np.bool_]:
        return np.isin(self.part, parts)


class Irregularity:
    """This individual's own noise: no two dogs carry the same blotches."""

    def __init__(self, surface: Surface, rng: np.random.Generator) -> None:
        x, y, z = surface.place
        self._u = x + 0.62 * y
        self._v = z + 0.38 * y
        self._rng = rng

    def at(self, field: NDArray[np.float32], size: float, stretch: float = 1.0) -> Vector:
        """Noise whose features measure `size` (in trunks, `stretch` times that vertically)."""
        offset = self._rng.uniform(0, noise.TILE, 2)
        # Positions are cut to whole cells: far from zero, so that cutting rounds all of them the same way.
        offset += 16 * noise.TILE
        return noise.looked_up(field, self._u / size + offset[0], self._v / (size * stretch) + offset[1])

    def blotches(self, size: float) -> Vector:
        return self.at(noise.blotches(), size / 16.0)

    def grain(self, size: float) -> Vector:
        return self.at(noise.grain(), size / 4.0)


def _ramp(value: NDArray[np.floating], width: float) -> Vector:
    """0 below -width/2, 1 above width/2, linear between."""
    return np.clip(value / width + 0.5, 0.0, 1.0).astype(np.float32, copy=False)


def _field(s: Surface, values: dict[Part, Vector], elsewhere: float = -1.0) -> Vector:
    """Values [N] that are given part by part."""
    field = np.full(len(s.part), elsewhere, dtype=np.float32)
    for part, value in values.items():
        on = s.on(part)
        field[on] = value[on]
    return field


def _distance(s: Surface, x: float, y: float, z: float) -> Vector:
    """Distance on the head from a place and the one opposite."""
    return np.sqrt((s.along - x) ** 2 + (np.abs(s.side) - y) ** 2 + (s.up - z) ** 2)


def _saddle(s: Surface, n: Irregularity) -> Vector:
    edge = 0.16 * n.blotches(0.22)
    values = {
        Part.TRUNK: np.minimum(s.up + 0.12, 2.2 * (0.98 - s.along)) + edge,
        Part.NECK: s.up - 0.25 + edge,
        Part.TAIL: 0.85 - s.along + edge,
        Part.HINDLEG: 0.16 - s.along + 0.4 * edge,
    }
    return _ramp(_field(s, values), 0.22)


def _tan_points(s: Surface, n: Irregularity) -> Vector:
    edge = 0.05 * n.blotches(0.12)
    values = {
        Part.MUZZLE: np.maximum(np.abs(s.side) - 0.26, -0.28 - s.up),
        Part.SKULL: np.maximum(0.20 - _distance(s, 0.80, 0.34, 0.42), -0.34 - s.up),
        Part.TRUNK: np.minimum(s.along - 0.90, 0.12 - s.up),
        Part.NECK: np.minimum(-0.55 - s.up, 0.4 - s.along),
        Part.FORELEG: s.along - 0.56,
        Part.HINDLEG: s.along - 0.60,
    }
    return _ramp(_field(s, values) + edge, 0.10)


def _mask(s: Surface, n: Irregularity) -> Vector:
    edge = 0.06 * n.blotches(0.15)
    eyes = 0.30 - _distance(s, 0.78, 0.45, 0.20)
    values = {
        Part.MUZZLE: s.along - 0.30,
        Part.SKULL: np.maximum(eyes, s.along - 0.86 - 0.5 * np.maximum(s.up, 0)),
    }
    return _ramp(_field(s, values) + edge, 0.16)


def _dark_ears(s: Surface, n: Irregularity) -> Vector:
    return np.where(s.on(Part.EAR), _ramp(s.along + 0.3, 0.3), np.float32(0.0))


def _white_trim(s: Surface, n: Irregularity) -> Vector:
    edge = n.blotches(0.14)
    blaze = 0.13 + 0.05 * edge
    values = {
        Part.SKULL: np.minimum(blaze - np.abs(s.side), s.along),
        Part.MUZZLE: np.maximum(blaze + 0.10 - np.abs(s.side), -0.50 - s.up + 0.05 * edge),
        Part.NECK: 0.30 - np.abs(s.along - 0.35) - 0.42 * (s.up + 0.7) + 0.10 * edge,
        Part.TRUNK: np.maximum(np.minimum(s.along - 0.84, 0.0 - s.up), -0.86 - s.up) + 0.06 * edge,
        Part.FORELEG: s.along - 0.62 + 0.05 * edge,
        Part.HINDLEG: s.along - 0.76 + 0.05 * edge,
        Part.TAIL: s.along - 0.76 + 0.05 * edge,
    }
    return _ramp(_field(s, values), 0.09)


def _underside(s: Surface, n: Irregularity) -> Vector:
    edge = 0.06 * n.blotches(0.16)
    values = {
        Part.MUZZLE: np.maximum(-0.24 - s.up, 0.75 * (np.abs(s.side) - 0.34)),
        Part.SKULL: -0.22 - s.up + 0.25 * (np.abs(s.side) - 0.6),
        Part.NECK: -0.30 - s.up,
        Part.TRUNK: np.maximum(-0.52 - s.up, np.minimum(s.along - 0.92, 0.1 - s.up)),
        Part.FORELEG: 0.6 * (s.along - 0.72),
        Part.HINDLEG: 0.6 * (s.along - 0.78),
    }
    return _ramp(_field(s, values) + edge, 0.22)


def _spots(s: Surface, n: Irregularity) -> Vector:
    return _ramp(n.blotches(0.075) - 0.85, 0.35)


def _patches(s: Surface, n: Irregularity) -> Vector:
    field = n.blotches(0.55) + 0.12 * n.grain(0.05)
    field = np.where(s.on(Part.EAR), field + 0.9, np.where(s.on(Part.FORELEG, Part.HINDLEG), field - 0.8, field))
    return _ramp(field - 0.45, 0.12)


def _merle(s: Surface, n: Irregularity) -> Vector:
    return _ramp(n.blotches(0.20) + 0.40 * n.grain(0.045) - 0.42, 0.25) * 0.94


def _brindle(s: Surface, n: Irregularity) -> Vector:
    lean = s.place[0] - 0.25 * s.place[2]
    across = np.where(s.on(Part.FORELEG, Part.HINDLEG, Part.SKULL, Part.NECK), s.place[2] + 0.2 * s.place[0], lean)
    wave = np.sin(across * 120.0 + 2.6 * n.blotches(0.16))
    return _ramp(wave + 0.55 * n.blotches(0.24) - 0.25, 0.9) * 0.62


def _shading(s: Surface, n: Irregularity) -> Vector:
    leg = -0.15 - 0.8 * s.up
    values = {
        Part.TRUNK: -0.35 - s.up,
        Part.FORELEG: leg,
        Part.HINDLEG: leg,
        Part.TAIL: s.along - 0.30,
        Part.NECK: -0.25 - s.up,
    }
    return 0.75 * _ramp(_field(s, values, elsewhere=0.0) - 0.2 + 0.12 * n.blotches(0.2), 0.9)


COVERAGE: dict[Pattern, Callable[[Surface, Irregularity], Vector]] = {
    "saddle": _saddle,
    "tan_points": _tan_points,
    "mask": _mask,
    "dark_ears": _dark_ears,
    "white_trim": _white_trim,
    "underside": _underside,
    "spots": _spots,
    "patches": _patches,
    "merle": _merle,
    "brindle": _brindle,
    "shading": _shading,
}
"""How much of a marking covers each point, 0 to 1."""


def coloured(surface: Surface, colourway: Colourway, coat: Coat, rng: np.random.Generator) -> Vector:
    """Colour [3, N] of the points under white light, 0 to 255."""
    irregularity = Irregularity(surface, rng)
    # Individuals of one colourway differ: lighter or darker, warmer or colder.
    base = np.asarray(colourway.base) * rng.uniform(0.88, 1.10) * (1 + rng.normal(0, 0.03, 3)) + rng.uniform(-4, 6)
    colours = np.empty((3, len(surface.part)), dtype=np.float32)
    colours[:] = base[:, None]
    for marking in colourway.markings:
        cover = COVERAGE[marking.pattern](surface, irregularity)
        colours += cover * (np.asarray(marking.colour, dtype=np.float32)[:, None] - colours)
    return colours * (1 + _hair_texture(surface, coat, irregularity))


def _hair_texture(surface: Surface, coat: Coat, irregularity: Irregularity) -> Vector:
    """Relative lightness of the hair: tone over the body, strands or curls within it."""
    tone = 0.05 * irregularity.blotches(0.35)
    if coat.kind == "curly":
        return 0.06 + 0.5 * tone + 0.085 * irregularity.grain(0.045)
    if coat.kind == "smooth":
        return tone + 0.012 * irregularity.at(noise.strands(), 0.003)
    strands = irregularity.at(noise.strands(), 0.0055, stretch=1.0 if coat.kind == "feathered" else 0.5)
    strands *= np.where(surface.on(Part.SKULL, Part.MUZZLE), np.float32(0.4), np.float32(1.0))  # short on every face
    return tone + (0.045 + 0.035 * coat.length) * strands
