"""Ellipsoids, and what is seen of them through a window.

A dog is about a hundred overlapping ellipsoids. Seen from anywhere they give a silhouette with depth, from which light,
coat and markings are computed per pixel. Where a point is on its part is said in coat coordinates (along, side, up).
Trunk: along 0 (rump) to 1 (chest), side and up -1 to 1. Neck: along 0 (base) to 1 (head). Legs, tail and ears: along 0
(root) to 1 (tip), up is a leg's front. Head: x, y, z in radii of the skull.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Triple = tuple[float, float, float]

Part = IntEnum("Part", "TRUNK NECK SKULL MUZZLE EAR FORELEG HINDLEG TAIL NOSE EYE MOUTH", start=0)
"""What a solid belongs to. Those up to `TAIL` wear the coat; the others have a colour of their own."""
HEAD = (Part.SKULL, Part.MUZZLE, Part.EAR, Part.NOSE)


@dataclass(frozen=True)
class Frame:
    """A place, three orthonormal directions (rows) and the lengths that count as 1 along them."""

    origin: Floats  # [3]
    axes: Floats  # [3, 3]
    scale: Floats  # [3]

    def point(self, *local: float) -> Floats:
        """World position of a point in this frame's units."""
        return self.origin + (np.asarray(local) * self.scale) @ self.axes


@dataclass(frozen=True)
class Window:
    """The piece of the image's plane that is drawn: its top left corner, size, and pixels per unit of length."""

    left: float
    top: float
    scale: float
    width: int
    height: int


def normalised(vectors: Any, axis: int = -1) -> Any:
    """The vectors along an axis at unit length."""
    return vectors / np.sqrt(np.maximum((vectors * vectors).sum(axis=axis, keepdims=True), 1e-18))


class Solids:
    """A growing collection of ellipsoids, each with the affine map from the world to its coat coordinates."""

    def __init__(self) -> None:
        self._blocks: list[tuple[NDArray[Any], ...]] = []

    def ellipsoids(
        self, centres: Floats, axes: Floats, radii: Floats, part: Part, coat: tuple[Floats, Floats], hair: float,
        bulge: float,
    ) -> None:  # fmt: skip
        """Add n ellipsoids with these centres and radii [n, 3] along axes (rows) [3, 3] or [n, 3, 3].

        `coat` is the linear part of the map to coat coordinates and its values at the centres; `hair` says how ragged
        hair makes the outline, 0 to 1; `bulge` scales how much a surface turns along the first axis: near 0 it is lit
        like a piece of a cylinder.
        """
        n = len(centres)
        matrices = np.broadcast_to(axes, (n, 3, 3)), np.broadcast_to(coat[0], (n, 3, 3))
        numbers = np.full(n, bulge), np.full(n, part, dtype=np.int64), np.full(n, hair)
        self._blocks.append((centres, radii, coat[1], *matrices, *numbers))

    def blob(self, frame: Frame, at: Triple, radii: Triple, part: Part, *, hair: float = 0.0) -> None:
        """Add one ellipsoid placed and measured in `frame`; its coat coordinates are the frame's."""
        centre, sizes, place = frame.point(*at), np.asarray(radii) * frame.scale, np.asarray(at, dtype=float)
        coat = frame.axes / frame.scale[:, None], place[None]
        self.ellipsoids(centre[None], frame.axes, sizes[None], part, coat, hair, bulge=1.0)

    def tube(
        self, points: Floats, radii: Floats, part: Part, *, across: Floats, flat: float = 1.0, hair: float = 0.0
    ) -> None:
        """Add ellipsoids along a polyline of corners [k, 3] with a radius [k] at each; `flat` scales it `across`."""
        lengths = np.sqrt(np.square(points[1:] - points[:-1]).sum(axis=1))
        travelled = np.concatenate([[0.0], np.cumsum(lengths)])
        total = max(float(travelled[-1]), 1e-6)
        count = max(2, int(np.ceil(total / (0.5 * float(radii.mean())))) + 1)
        at = np.linspace(0.0, total, count)
        centres = np.stack([np.interp(at, travelled, points[:, k]) for k in range(3)], axis=1)
        radius = np.interp(at, travelled, radii)
        along = normalised(np.gradient(centres, axis=0))
        up = normalised(np.cross(along, across))
        axes = np.stack([along, np.cross(up, along), up], axis=1)
        sizes = np.stack([np.maximum(radius, 0.8 * total / (count - 1)), radius * flat, radius], axis=1)
        coat_map = axes / np.stack([np.full(count, total), sizes[:, 1], sizes[:, 2]], axis=1)[:, :, None]
        coat_at = np.stack([at / total, np.zeros(count), np.zeros(count)], axis=1)
        self.ellipsoids(centres, axes, sizes, part, (coat_map, coat_at), hair, bulge=0.12)

    def seen_from(self, view: Floats) -> Scene:
        """Turn everything into the viewer's frame: rows of `view` [3, 3] are right, up and towards the viewer."""
        columns = map(np.concatenate, zip(*self._blocks, strict=True))
        centres, radii, coat_at, axes, coat_maps, bulges, parts, hair = columns
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
            view=view,
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
    view: Floats  # [3, 3]: right, up and towards the viewer in the dog's frame

    def box(self, parts: tuple[Part, ...] = tuple(Part)) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of the solids of `parts`."""
        chosen = np.isin(self.parts, parts)
        left, bottom, _ = (self.centres - self.reach)[chosen].min(axis=0).tolist()
        right, top, _ = (self.centres + self.reach)[chosen].max(axis=0).tolist()
        return left, bottom, right, top

    def drawn(self, window: Window) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Which solid is seen at every pixel [height, width], -1 where there is none; the N visible places [3, N]."""
        shape, size = self.shapes, np.array([window.width, window.height])
        inverse_zz = 1.0 / shape[:, 2, 2]
        # Solving the surface's equation for z: z = lean . (x, y) + depth * sqrt(1 - outline(x, y)).
        lean = -shape[:, :2, 2] * inverse_zz[:, None]
        outline = shape[:, :2, :2] - np.einsum("ni,nj,n->nij", shape[:, :2, 2], shape[:, :2, 2], inverse_zz)
        numbers = np.column_stack([self.centres, lean, np.sqrt(inverse_zz), outline.reshape(-1, 4)]).tolist()
        middle = (self.centres[:, :2] - (window.left, window.top)) * (window.scale, -window.scale)
        half = self.reach[:, :2] * window.scale
        boxes = np.hstack([np.clip(np.floor(middle - half), 0, size), np.clip(np.ceil(middle + half), 0, size)])
        near = np.full(size[::-1], -np.inf, dtype=np.float32)
        seen = np.full(size[::-1], -1, dtype=np.int16)
        xs = (window.left + (np.arange(window.width) + 0.5) / window.scale).astype(np.float32)
        ys = (window.top - (np.arange(window.height) + 0.5) / window.scale).astype(np.float32)
        with np.errstate(invalid="ignore"):  # outside the outline the root is NaN, which is never nearer
            for i, (x0, y0, x1, y1) in enumerate(boxes.astype(int).tolist()):
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
