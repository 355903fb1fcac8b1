"""The colour of every visible point of a coat: the base colour, the markings over it, the hair's own texture.

Coat coordinates are (along, side, up). Trunk: along 0 (rump) to 1 (chest), side and up -1 to 1. Neck: along 0 (base) to
1 (head). Legs and tail: along 0 (root) to 1 (tip), up is a leg's front. Head: x, y, z in radii of the skull. Ears:
along 0 to 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import noise
from .breeds import Coat, Colourway, Marking
from .solids import Part

Vectors = NDArray[np.float32]
"""Three rows, one column for each visible point: arithmetic on rows is the fastest there is here."""
Vector = NDArray[np.float32]


class Irregularity:
    """This individual's own noise: no two dogs carry the same blotches."""

    def __init__(self, place: Vectors, rng: np.random.Generator) -> None:
        x, y, z = place
        self._u, self._v, self._rng = x + 0.62 * y, z + 0.38 * y, rng

    def at(self, field: Vectors, cell: float) -> Vector:
        """Noise whose cells have this size, in trunks."""
        # Positions are cut to whole cells: far from zero, so that cutting rounds all of them the same way.
        x, y = self._rng.uniform(0, noise.TILE, 2) + 16 * noise.TILE
        return noise.looked_up(field, self._u / cell + x, self._v / cell + y)


def coloured(
    part: NDArray[np.int64],
    coat_at: Vectors,
    place: Vectors,
    colourway: Colourway,
    coat: Coat,
    rng: np.random.Generator,
) -> Vectors:
    """Colour [3, N] under white light, 0 to 255, of N points of these parts.

    `coat_at` [3, N] is where they are in coat coordinates, `place` [3, N] in the dog's frame: irregular patterns come
    from there.
    """
    irregularity = Irregularity(place, rng)
    # Individuals of one colourway differ: lighter or darker, warmer or colder.
    base = np.asarray(colourway.base) * rng.uniform(0.88, 1.10) * (1 + rng.normal(0, 0.03, 3)) + rng.uniform(-4, 6)
    colours = np.empty((3, len(part)), dtype=np.float32)
    colours[:] = base[:, None]
    planes = np.stack([np.ones_like(coat_at[0]), coat_at[0], np.abs(coat_at[1]), coat_at[2]])
    for marking in colourway.markings:
        cover = _cover(marking, part, planes, place, irregularity)
        colours += cover * (np.asarray(marking.colour, dtype=np.float32)[:, None] - colours)
    if coat.curls:
        strands = irregularity.at(noise.grain(), coat.size / 4)
    else:
        strands = irregularity.at(noise.strands(), coat.size)
        strands[(part == Part.SKULL) | (part == Part.MUZZLE)] *= 0.4  # short on every face
    return colours * (1 + 0.05 * irregularity.at(noise.blotches(), 0.022) + coat.strands * strands)


def _cover(
    marking: Marking, part: NDArray[np.int64], planes: Vectors, place: Vectors, irregularity: Irregularity
) -> Vector:
    """How much of a marking covers each point, 0 to 1."""
    depth = np.full(len(part), marking.elsewhere, dtype=np.float32)
    for name, groups in marking.parts.items():
        on = np.flatnonzero(part == Part[name])
        inside = [
            np.einsum("pk,kn->pn", np.array(group, dtype=np.float32), planes[:, on]).min(axis=0) for group in groups
        ]
        depth[on] = np.max(inside, axis=0)
    weight, size = marking.blotches
    depth += weight * irregularity.at(noise.blotches(), size / 16)
    if marking.grain:
        depth += marking.grain * irregularity.at(noise.grain(), 0.012)
    if marking.stripes:
        depth += marking.stripes * np.sin(
            120 * (place[0] - 0.25 * place[2]) + 2.6 * irregularity.at(noise.blotches(), 0.01)
        )
    return marking.opacity * np.clip(depth / marking.width + 0.5, 0, 1)
