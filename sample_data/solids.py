"""Ellipsoids and the two buffers they are drawn into: which solid is seen at a pixel, and how near it is.

A dog is about a hundred overlapping ellipsoids. Seen from anywhere they give a silhouette with depth, from which
light, coat and markings are computed per pixel; no image is ever posed twice from the same flat drawing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


class Part(IntEnum):
    """What a solid belongs to. Those up to `TAIL` wear the coat; the others have a colour of their own."""

    TRUNK = 0
    NECK = 1
    SKULL = 2
    MUZZLE = 3
    EAR = 4
    FORELEG = 5
    HINDLEG = 6
    TAIL = 7
    NOSE = 8
    EYE = 9
    MOUTH = 10
    TONGUE = 11
    INNER_EAR = 12
    COLLAR = 13


LAST_COATED = Part.TAIL


@dataclass(frozen=True)
class Frame:
    """A place, three orthonormal directions (rows) and the lengths that count as 1 along them."""

    origin: Floats  # [3]
    axes: Floats  # [3, 3]
    scale: Floats  # [3]

    def point(self, *local: float) -> Floats:
        """World position of a point given in this frame's own units."""
        return self.origin + (np.asarray(local) * self.scale) @ self.axes


def normalised(vectors: Floats) -> Floats:
    """The vectors [..., 3] at unit length."""
    return vectors / np.sqrt(np.maximum(np.einsum("...i,...i->...", vectors, vectors), 1e-18))[..., None]


def cross(a: Floats, b: Floats) -> Floats:
    """Vector product of [3] or [n, 3] with the same: np.cross spends 20 microseconds on finding out which."""
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx]).T


class Solids:
    """A growing collection of ellipsoids.

    Each also carries an affine map from world position to *coat coordinates* (along, side, up), in which markings are
    described, and how ragged its hair makes its outline (0 to 1).
    """

    def __init__(self) -> None:
        self._blocks: list[dict[str, Any]] = []

    def ellipsoids(
        self,
        centres: Floats,
        axes: Floats,
        radii: Floats,
        part: Part,
        *,
        hair: float,
        coat_map: Floats,
        coat_at: Floats,
        bulge: float = 1.0,
        slopes: Floats | None = None,
    ) -> None:
        """Add n ellipsoids.

        Parameters
        ----------
        centres, axes, radii
            [n, 3], rows of [n, 3, 3], [n, 3].
        coat_map, coat_at
            The map's linear part [n, 3, 3] and its value [n, 3] at the centres.
        bulge, slopes
            For light only. How round each solid looks along its first axis (0: like a piece of a cylinder), and what to
            add to its outward directions [n, 3], so that a row of them looks like one smooth tube.
        """
        count = len(centres)
        self._blocks.append(
            {
                "centres": centres,
                "axes": axes,
                "radii": radii,
                "coat_maps": coat_map,
                "coat_origins": coat_at - np.einsum("nij,nj->ni", coat_map, centres),
                "bulges": np.full(count, bulge),
                "slopes": np.zeros((count, 3)) if slopes is None else slopes,
                "parts": np.full(count, part, dtype=np.int64),
                "hair": np.full(count, hair),
            }
        )

    def blob(
        self,
        frame: Frame,
        at: tuple[float, float, float],
        radii: tuple[float, float, float],
        part: Part,
        *,
        hair: float = 0.0,
        axes: Floats | None = None,
    ) -> None:
        """Add one ellipsoid placed and measured in `frame`; its coat coordinates are the frame's."""
        centre = frame.point(*at)
        self.ellipsoids(
            centre[None],
            (frame.axes if axes is None else axes)[None],
            (np.asarray(radii) * frame.scale)[None],
            part,
            hair=hair,
            coat_map=(frame.axes / frame.scale[:, None])[None],
            coat_at=np.asarray(at, dtype=float)[None],
        )

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
        """Add ellipsoids along a polyline.

        Parameters
        ----------
        points, radii
            Corners [k, 3] and the tube's radius at each [k].
        across
            The direction [3] that the cross-section's first axis leans to: the side of coat coordinates.
        flat
            Factors of the radius along that axis and along the other one.
        frame
            Whose coordinates the coat uses; by default along = 0..1 from first to last point, side and up = -1..1.
        spacing
            Distance of the ellipsoids in radii.
        """
        lengths = np.sqrt(np.square(points[1:] - points[:-1]).sum(axis=1))
        travelled = np.concatenate([[0.0], np.cumsum(lengths)])
        total = max(float(travelled[-1]), 1e-6)
        count = max(2, int(np.ceil(total / (spacing * float(radii.mean())))) + 1)
        at = np.linspace(0.0, total, count)
        centres = np.stack([np.interp(at, travelled, points[:, k]) for k in range(3)], axis=1)
        radius = np.interp(at, travelled, radii)
        along = normalised(np.gradient(centres, axis=0))
        up = normalised(cross(along, across))
        axes = np.stack([along, cross(up, along), up], axis=1)
        step = total / (count - 1)
        sizes = np.stack(
            [np.maximum(radius * min(1.0, max(flat)), 0.8 * step), radius * flat[0], radius * flat[1]], axis=1
        )
        if frame is None:
            coat_map = axes / np.stack([np.full(count, total), sizes[:, 1], sizes[:, 2]], axis=1)[:, :, None]
            coat_at = np.stack([at / total, np.zeros(count), np.zeros(count)], axis=1)
        else:
            own = frame.axes / frame.scale[:, None]
            coat_map = np.broadcast_to(own, (count, 3, 3))
            coat_at = (centres - frame.origin) @ own.T
        # A narrowing tube faces a little towards its narrow end.
        narrowing = -np.gradient(radius, step) / radius
        self.ellipsoids(
            centres,
            axes,
            sizes,
            part,
            hair=hair,
            coat_map=coat_map,
            coat_at=coat_at,
            bulge=0.12,
            slopes=along * np.clip(narrowing, -3.0 / radius, 3.0 / radius)[:, None],
        )

    def seen_from(self, view: Floats) -> Scene:
        """Turn everything into the viewer's frame: rows of `view` [3, 3] are right, up and towards the viewer."""
        every = {name: np.concatenate([block[name] for block in self._blocks]) for name in self._blocks[0]}
        axes, radii, centres = every["axes"] @ view.T, every["radii"], every["centres"] @ view.T
        roundness = radii**-2.0
        shapes = np.einsum("nki,nk,nkj->nij", axes, roundness, axes)
        roundness[:, 0] *= every["bulges"]
        normals = np.einsum("nki,nk,nkj->nij", axes, roundness, axes)
        return Scene(
            centres=centres,
            shapes=shapes,
            normals=normals,
            normal_origins=every["slopes"] @ view.T - np.einsum("nij,nj->ni", normals, centres),
            reach=np.sqrt(np.einsum("nki,nk,nki->ni", axes, radii**2.0, axes)),
            coat_maps=every["coat_maps"] @ view.T,
            coat_origins=every["coat_origins"],
            parts=every["parts"],
            hair=every["hair"],
        )


@dataclass(frozen=True)
class Scene:
    """The ellipsoids in the viewer's frame: x right, y up, z towards the viewer."""

    centres: Floats  # [n, 3]
    shapes: Floats  # [n, 3, 3]: (p - c)' S (p - c) = 1 on the surface
    normals: Floats  # [n, 3, 3]: outward direction at p (not of unit length) = normals p + normal_origins
    normal_origins: Floats  # [n, 3]
    reach: Floats  # [n, 3]: half the size of the box around each
    coat_maps: Floats  # [n, 3, 3]
    coat_origins: Floats  # [n, 3]
    parts: NDArray[np.int64]  # [n]
    hair: Floats  # [n]

    def box(self, parts: tuple[Part, ...] | None = None) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of all solids or of those of `parts`."""
        chosen = slice(None) if parts is None else np.isin(self.parts, parts)
        low = (self.centres - self.reach)[chosen].min(axis=0)
        high = (self.centres + self.reach)[chosen].max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def drawn(self, left: float, top: float, scale: float, width: int, height: int) -> Buffers:
        """What is seen through a window of width x height pixels whose top left corner is at (left, top).

        `scale` is in pixels per unit of length.
        """
        shape = self.shapes
        inverse_zz = 1.0 / shape[:, 2, 2]
        # Solving the surface's equation for z: z = lean . (x, y) + depth * sqrt(1 - outline(x, y)).
        lean = -shape[:, :2, 2] * inverse_zz[:, None]
        outline = shape[:, :2, :2] - np.einsum("ni,nj,n->nij", shape[:, :2, 2], shape[:, :2, 2], inverse_zz)
        depth = np.sqrt(inverse_zz).tolist()
        lean_x, lean_y = lean.T.tolist()
        outline_xx, outline_xy, _, outline_yy = outline.reshape(-1, 4).T.tolist()
        centre_x, centre_y, centre_z = self.centres.T.tolist()
        x0 = np.clip(np.floor((self.centres[:, 0] - self.reach[:, 0] - left) * scale), 0, width).astype(int).tolist()
        x1 = np.clip(np.ceil((self.centres[:, 0] + self.reach[:, 0] - left) * scale), 0, width).astype(int).tolist()
        y0 = np.clip(np.floor((top - self.centres[:, 1] - self.reach[:, 1]) * scale), 0, height).astype(int).tolist()
        y1 = np.clip(np.ceil((top - self.centres[:, 1] + self.reach[:, 1]) * scale), 0, height).astype(int).tolist()

        xs = (left + (np.arange(width) + 0.5) / scale).astype(np.float32)
        ys = (top - (np.arange(height) + 0.5) / scale).astype(np.float32)
        near = np.full((height, width), -np.inf, dtype=np.float32)
        seen = np.full((height, width), -1, dtype=np.int16)
        with np.errstate(invalid="ignore"):  # outside the outline the root is NaN, which is never nearer
            for i in range(len(depth)):
                if x0[i] >= x1[i] or y0[i] >= y1[i]:
                    continue
                x = xs[x0[i] : x1[i]] - centre_x[i]
                y = (ys[y0[i] : y1[i]] - centre_y[i])[:, None]
                z = y * (-2.0 * outline_xy[i] * x - outline_yy[i] * y)
                z += 1.0 - outline_xx[i] * x * x
                np.sqrt(z, out=z)
                z *= depth[i]
                z += lean_x[i] * x + centre_z[i]
                z += lean_y[i] * y
                window = near[y0[i] : y1[i], x0[i] : x1[i]]
                nearer = z > window
                np.copyto(window, z, where=nearer)
                seen[y0[i] : y1[i], x0[i] : x1[i]][nearer] = i
        return Buffers(near, seen, xs, ys)


@dataclass(frozen=True)
class Buffers:
    near: NDArray[np.float32]  # [height, width]: z of the surface, -inf where there is none
    seen: NDArray[np.int16]  # [height, width]: index of the solid, -1 where there is none
    xs: NDArray[np.float32]  # [width]: x of the pixels' centres
    ys: NDArray[np.float32]  # [height]
