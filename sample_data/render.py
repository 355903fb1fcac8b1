"""From solids to a cut-out image of a dog: the colours of its coat, light on fur, and ragged outlines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from . import noise
from .breeds import Coat, Colourway, Marking
from .solids import Floats, Part, Scene, Window, normalised

OWN_COLOURS = {Part.NOSE: (34, 28, 30), Part.EYE: (38, 22, 14), Part.MOUTH: (52, 24, 26)}
Generator = np.random.Generator
Vectors = NDArray[np.float32]
"""Three rows, one column for each visible point: arithmetic on rows is the fastest there is here."""
Vector = NDArray[np.float32]


def rendered(scene: Scene, window: Window, coat: Coat, colourway: Colourway, rng: Generator) -> Image.Image:
    """The dog as an RGBA image of the window's size, transparent around it, in the light of some sun."""
    seen, place = scene.drawn(window)
    visible = seen >= 0
    solid = seen[visible]
    part = scene.parts[solid]
    colours = _coloured(part, _mapped(scene.coats, solid, place), _product(scene.view.T, place), colourway, coat, rng)
    for own, colour in OWN_COLOURS.items():
        colours[:, part == own] = np.asarray(colour, dtype=np.float32)[:, None]
    normal = _smoothed(_mapped(scene.normals, solid, place), visible, radius=0.024 * window.scale)
    ambient, strength, aside = rng.uniform(0.34, 0.5), rng.uniform(0.5, 0.75), rng.uniform(0.2, 0.8)
    sun = normalised(np.array([aside * rng.choice([-1, 1]), rng.uniform(0.5, 0.95), rng.uniform(0.35, 0.8)]))
    # Fur scatters: the terminator is soft, and the sky fills the upper sides.
    wrapped = np.clip(0.65 * _product(sun[None], normal)[0] + 0.35, 0, 1)
    brightness = ambient * (0.82 + 0.18 * normal[1]) + strength * wrapped
    colours *= brightness * _nooks(place[2], visible, radius=0.05 * window.scale)
    half = sun + np.array([0.0, 0.0, 1.0])
    aligned = np.clip(_product(normalised(half)[None], normal)[0], 0, 1)
    # Highlights: broad on a coat, small and bright on the nose and in the eyes.
    colours += strength * np.where((part == Part.NOSE) | (part == Part.EYE), 160.0 * aligned**8, 16.0 * aligned**10)

    pixels = np.zeros((window.height, window.width, 4), dtype=np.uint8)
    opaque = np.full((len(solid), 4), 255, dtype=np.uint8)
    opaque[:, :3] = np.clip(colours, 0, 255).T
    pixels[visible] = opaque
    if coat.fall:
        # Hair hangs: what faces up lies flat, what faces down is fringed.
        loose = scene.hair[solid].astype(np.float32) * np.clip(0.55 - 0.45 * normal[1], 0, 1)
        pixels = _ragged(pixels, loose, visible, coat, window.scale, rng)
    return Image.fromarray(pixels, "RGBA")


def _coloured(
    part: NDArray[np.int64], coat_at: Vectors, place: Vectors, colourway: Colourway, coat: Coat, rng: Generator
) -> Vectors:
    """Colour under white light, 0 to 255, of N points [3, N] given in coat coordinates and in the dog's frame."""
    base, markings = colourway
    # Individuals of one colourway differ: lighter or darker, warmer or colder.
    own = np.asarray(base) * rng.uniform(0.88, 1.10) * (1 + rng.normal(0, 0.03, 3)) + rng.uniform(-4, 6)
    colours = np.broadcast_to(own.astype(np.float32)[:, None], (3, len(part)))
    planes = np.stack([np.ones_like(coat_at[0]), coat_at[0], np.abs(coat_at[1]), coat_at[2]])
    for marking in markings:
        cover = _cover(marking, part, planes, place, rng)
        colours = colours + cover * (np.asarray(marking.colour, dtype=np.float32)[:, None] - colours)
    strands = _irregular(noise.GRAIN if coat.curls else noise.STRANDS, place, coat.size, rng)
    strands[(part == Part.SKULL) | (part == Part.MUZZLE)] *= 0.4  # short on every face
    return colours * (1 + 0.05 * _irregular(noise.BLOTCHES, place, 0.022, rng) + coat.strands * strands)


def _irregular(field: Vectors, place: Vectors, cell: float, rng: Generator) -> Vector:
    """Noise over a dog, its cells of a size in trunks; from elsewhere at each call: no two dogs are alike."""
    x, y, z = place
    # Positions are cut to whole cells: far from zero, so that cutting rounds all of them the same way.
    u, v = rng.uniform(16 * noise.TILE, 17 * noise.TILE, 2)
    return noise.looked_up(field, (x + 0.62 * y) / cell + u, (z + 0.38 * y) / cell + v)


def _cover(marking: Marking, part: NDArray[np.int64], planes: Vectors, place: Vectors, rng: Generator) -> Vector:
    """How much of a marking covers each point, 0 to 1."""
    depth = np.full(len(part), marking.elsewhere, dtype=np.float32)
    for name, groups in marking.parts.items():
        on = np.flatnonzero(part == Part[name])
        inside = [
            np.einsum("pk,kn->pn", np.array(group, dtype=np.float32), planes[:, on]).min(axis=0) for group in groups
        ]
        depth[on] = np.max(inside, axis=0)
    weight, size = marking.blotches
    depth += weight * _irregular(noise.BLOTCHES, place, size / 16, rng)
    if marking.stripes:
        bent = 2.6 * _irregular(noise.BLOTCHES, place, 0.01, rng)
        depth += marking.stripes * np.sin(120 * (place[0] - 0.25 * place[2]) + bent)
    opacity: Vector = marking.opacity * np.clip(depth / marking.width + 0.5, 0, 1)
    return opacity


def _mapped(maps: NDArray[np.float32], solid: NDArray[np.int16], place: Vectors) -> Vectors:
    """Each point [3, N] under the affine map of the solid that it lies on."""
    m = maps.take(solid, axis=1)
    x, y, z = place
    mapped: Vectors = np.stack([m[3 * k] * x + m[3 * k + 1] * y + m[3 * k + 2] * z + m[9 + k] for k in range(3)])
    return mapped


def _product(rows: Floats, vectors: Vectors) -> Vectors:
    """The matrix product [k, 3] x [3, N], without a BLAS: its threads would fight those of the other workers."""
    product: Vectors = np.einsum("ki,in->kn", rows.astype(np.float32), vectors)
    return product


def _smoothed(normal: Vectors, visible: NDArray[np.bool_], radius: float) -> Vectors:
    """Normals averaged over their neighbourhood, so that overlapping solids read as one body."""
    unit = normalised(normal, axis=0)
    encoded = np.zeros((*visible.shape, 4), dtype=np.uint8)
    values = np.full((unit.shape[1], 4), 255, dtype=np.uint8)
    values[:, :3] = (unit * 100 + 128).T
    encoded[visible] = values
    # The fourth channel counts how much of the neighbourhood is dog.
    around = Image.fromarray(encoded, "RGBX").filter(ImageFilter.BoxBlur(radius))
    blurred = np.asarray(around)[visible].T.astype(np.float32)
    smooth: Vectors = normalised(blurred[:3] * (255.0 / blurred[3]) - 128.0 + 45.0 * unit, axis=0)
    return smooth


def _nooks(near: Vector, visible: NDArray[np.bool_], radius: float) -> Vector:
    """Less light where nearer parts surround a point: under the ears, between the legs."""
    low, high = float(near.min()), float(near.max())
    depth = np.zeros(visible.shape, dtype=np.uint8)
    depth[visible] = 1 + (near - low) * (254.0 / max(high - low, 1e-6))
    around = np.asarray(Image.fromarray(depth).filter(ImageFilter.BoxBlur(radius)))[visible].astype(np.float32)
    sunk = (around - depth[visible]) * ((high - low) / 254.0)
    light: Vector = 1.0 - np.clip(sunk * 3.2, 0.0, 0.45)
    return light


def _ragged(
    pixels: NDArray[np.uint8], loose: Vector, visible: NDArray[np.bool_], coat: Coat, scale: float, rng: Generator
) -> NDArray[np.uint8]:
    """Hair breaks outlines and the borders of markings: every pixel is taken from a little up its strand."""
    reach = np.zeros(visible.shape, dtype=np.uint8)
    reach[visible] = loose * 255
    spread = Image.fromarray(reach).filter(ImageFilter.BoxBlur(0.03 * scale))
    height, width = visible.shape
    # One cell of the noise is 1/300 of a trunk, whatever the resolution.
    field = noise.covering(noise.GRAIN if coat.curls else noise.STRANDS, rng, width, height, 300.0 / scale)
    shift = coat.fall * scale / 255.0 * field * np.asarray(spread).astype(np.float32)
    rows = np.clip(np.arange(height)[:, None] - np.abs(shift).astype(np.int64), 0, height - 1)
    columns = np.clip(np.arange(width)[None, :] - (0.4 * shift).astype(np.int64), 0, width - 1)
    moved: NDArray[np.uint8] = pixels[rows, columns]
    return moved
