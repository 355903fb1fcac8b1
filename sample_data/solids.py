"""Ellipsoids, and what is seen of them through a window.

A dog is about a hundred overlapping ellipsoids. Seen from anywhere they give a silhouette with depth, from which light,
coat and markings are computed per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Triple = tuple[float, float, float]


Part = IntEnum("Part", "TRUNK NECK SKULL MUZZLE EAR FORELEG HINDLEG TAIL NOSE EYE MOUTH TONGUE INNER_EAR", start=0)
"""What a solid belongs to. Those up to `TAIL` wear the coat; the others have a colour of their own."""


@dataclass(frozen=True)
class Frame:
    """A place, three orthonormal directions (rows) and the lengths that count as 1 along them."""

    origin: Floats  # [3]
    axes: Floats  # [3, 3]
    scale: Floats  # [3]

    def point(self, *local: float) -> Floats:
        """World position of a point in this frame's units."""
        return self.origin + (np.asarray(local) * self.scale) @ self.axes

    @property
    def map(self) -> Floats:
        """The linear part [3, 3] of the map from the world to this frame's units."""
        return self.axes / self.scale[:, None]


@dataclass(frozen=True)
class Window:
    """The piece of the image's plane that is drawn: its top left corner, size, and pixels per unit of length."""

    left: float
    top: float
    scale: float
    width: int
    height: int


def normalised(vectors: Floats) -> Floats:
    """The vectors [..., 3] at unit length."""
    return vectors / np.sqrt(np.maximum(np.einsum("...i,...i->...", vectors, vectors), 1e-18))[..., None]


class Solids:
    """A growing collection of ellipsoids.

    Each also has an affine map from the world to *coat coordinates* (along, side, up), in which markings are described,
    and says how ragged its hair makes its outline (0 to 1).
    """

    def __init__(self) -> None:
        self._blocks: list[tuple[NDArray[Any], ...]] = []

    def ellipsoids(
        self,
        centres: Floats,
        axes: Floats,
        radii: Floats,
        part: Part,
        coat: tuple[Floats, Floats],
        hair: float,
        bulge: float,
    ) -> None:
        """Add n ellipsoids: centres [n, 3], axes in rows of [n, 3, 3], radii [n, 3].

        `coat` is their maps' linear parts [n, 3, 3], and the values [n, 3] at the centres. `bulge` says how round each
        looks in the light along its first axis; 0 is a piece of a cylinder.
        """
        n = len(centres)
        matrices = np.broadcast_to(axes, (n, 3, 3)), np.broadcast_to(coat[0], (n, 3, 3))
        numbers = np.full(n, bulge), np.full(n, part, dtype=np.int64), np.full(n, hair)
        self._blocks.append((centres, radii, coat[1], *matrices, *numbers))

    def blob(self, frame: Frame, at: Triple, radii: Triple, part: Part, *, hair: float = 0.0) -> None:
        """Add one ellipsoid placed and measured in `frame`; its coat coordinates are the frame's."""
        centre, sizes, place = frame.point(*at), np.asarray(radii) * frame.scale, np.asarray(at, dtype=float)
        self.ellipsoids(centre[None], frame.axes, sizes[None], part, (frame.map, place[None]), hair, bulge=1.0)

    def tube(
        self,
        points: Floats,
        radii: Floats,
        part: Part,
        *,
        across: Floats,
        flat: tuple[float, float] = (1.0, 1.0),
        hair: float = 0.0,
        frame: Frame | None = None,
        spacing: float = 0.55,
    ) -> None:
        """Add ellipsoids, `spacing` radii apart, along a polyline of corners [k, 3] with a radius [k] at each.

        The cross-section's first axis leans to the direction `across`, the side of coat coordinates; `flat` has factors
        of the radius along it and along the other one. The coat uses the coordinates of `frame`; by default along is
        0..1 from first to last point, side and up are -1..1.
        """
        lengths = np.sqrt(np.square(points[1:] - points[:-1]).sum(axis=1))
        travelled = np.concatenate([[0.0], np.cumsum(lengths)])
        total = max(float(travelled[-1]), 1e-6)
        count = max(2, int(np.ceil(total / (spacing * float(radii.mean())))) + 1)
        at = np.linspace(0.0, total, count)
        centres = np.stack([np.interp(at, travelled, points[:, k]) for k in range(3)], axis=1)
        radius = np.interp(at, travelled, radii)
        along = normalised(np.gradient(centres, axis=0))
        up = normalised(np.cross(along, across))
        axes = np.stack([along, np.cross(up, along), up], axis=1)
        thick = np.maximum(radius * min(1.0, max(flat)), 0.8 * total / (count - 1))
        sizes = np.stack([thick, radius * flat[0], radius * flat[1]], axis=1)
        if frame is None:
            coat_map = axes / np.stack([np.full(count, total), sizes[:, 1], sizes[:, 2]], axis=1)[:, :, None]
            coat_at = np.stack([at / total, np.zeros(count), np.zeros(count)], axis=1)
        else:
            coat_map, coat_at = frame.map, (centres - frame.origin) @ frame.map.T
        self.ellipsoids(centres, axes, sizes, part, (coat_map, coat_at), hair, bulge=0.12)

    def seen_from(self, view: Floats) -> Scene:
        """Turn everything into the viewer's frame: rows of `view` [3, 3] are right, up and towards the viewer."""
        centres, radii, coat_at, axes, coat_maps, bulges, parts, hair = map(
            np.concatenate, zip(*self._blocks, strict=True)
        )
        axes, centres = axes @ view.T, centres @ view.T
        roundness = radii**-2.0
        shapes = np.einsum("nki,nk,nkj->nij", axes, roundness, axes)
        roundness[:, 0] *= bulges
        normals = np.einsum("nki,nk,nkj->nij", axes, roundness, axes)
        return Scene(
            centres=centres,
            shapes=shapes,
            reach=np.sqrt(np.einsum("nki,nk,nki->ni", axes, radii**2.0, axes)),
            normals=_affine(normals, np.zeros_like(centres), centres),
            coats=_affine(coat_maps @ view.T, coat_at, centres),
            parts=parts,
            hair=hair,
        )


def _affine(linear: Floats, value: Floats, centres: Floats) -> NDArray[np.float32]:
    """A column [12, n] for each map with these values at the centres: nine coefficients, then the values at zero."""
    origins = value - np.einsum("nij,nj->ni", linear, centres)
    return np.concatenate([linear.reshape(-1, 9), origins], axis=1).T.astype(np.float32)


@dataclass(frozen=True)
class Scene:
    """The ellipsoids in the viewer's frame: x right, y up, z towards the viewer."""

    centres: Floats  # [n, 3]
    shapes: Floats  # [n, 3, 3]: (p - c)' S (p - c) = 1 on the surface
    reach: Floats  # [n, 3]: half the size of the box around each
    normals: NDArray[np.float32]  # [12, n]: the affine maps to the outward direction, not of unit length
    coats: NDArray[np.float32]  # [12, n]: the affine maps to coat coordinates
    parts: NDArray[np.int64]  # [n]
    hair: Floats  # [n]

    def box(self, parts: tuple[Part, ...] = tuple(Part)) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of the solids of `parts`."""
        chosen = np.isin(self.parts, parts)
        left, bottom, _ = (self.centres - self.reach)[chosen].min(axis=0).tolist()
        right, top, _ = (self.centres + self.reach)[chosen].max(axis=0).tolist()
        return left, bottom, right, top

    def drawn(self, window: Window) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Which solid is seen at every pixel [height, width], -1 where there is none; the N visible places [3, N]."""
        shape, size = self.shapes, (window.height, window.width)
        inverse_zz = 1.0 / shape[:, 2, 2]
        # Solving the surface's equation for z: z = lean . (x, y) + depth * sqrt(1 - outline(x, y)).
        lean = -shape[:, :2, 2] * inverse_zz[:, None]
        outline = shape[:, :2, :2] - np.einsum("ni,nj,n->nij", shape[:, :2, 2], shape[:, :2, 2], inverse_zz)
        corners = np.stack([self.centres - self.reach, self.centres + self.reach])[:, :, :2]
        columns = (corners[:, :, 0] - window.left) * window.scale
        rows = (window.top - corners[::-1, :, 1]) * window.scale
        numbers = np.column_stack([self.centres, lean, np.sqrt(inverse_zz), outline.reshape(-1, 4)]).tolist()
        boxes = [np.clip(np.stack([np.floor(low), np.ceil(high)]), 0, most).astype(int).T.tolist()
                 for (low, high), most in ((columns, size[1]), (rows, size[0]))]  # fmt: skip
        near = np.full(size, -np.inf, dtype=np.float32)
        seen = np.full(size, -1, dtype=np.int16)
        xs = (window.left + (np.arange(window.width) + 0.5) / window.scale).astype(np.float32)
        ys = (window.top - (np.arange(window.height) + 0.5) / window.scale).astype(np.float32)
        with np.errstate(invalid="ignore"):  # outside the outline the root is NaN, which is never nearer
            for i, ((x0, x1), (y0, y1)) in enumerate(zip(*boxes, strict=True)):
                if x0 >= x1 or y0 >= y1:
                    continue
                centre_x, centre_y, centre_z, lean_x, lean_y, depth, xx, xy, _, yy = numbers[i]
                across = xs[x0:x1] - centre_x
                up = (ys[y0:y1] - centre_y)[:, None]
                z = up * (-2.0 * xy * across - yy * up)
                z += 1.0 - xx * across * across
                np.sqrt(z, out=z)
                z *= depth
                z += lean_x * across + centre_z
                z += lean_y * up
                piece = near[y0:y1, x0:x1]
                nearer = z > piece
                np.copyto(piece, z, where=nearer)
                seen[y0:y1, x0:x1][nearer] = i
        y, x = np.nonzero(seen >= 0)
        return seen, np.stack([xs[x], ys[y], near[y, x]])
