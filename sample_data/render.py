"""From solids to a cut-out image of a dog: light on fur, ragged outlines, eyes that catch the light."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from . import noise
from .breeds import Breed, Coat, Colour, Colourway
from .coats import Vector, Vectors, coloured
from .solids import Floats, Part, Scene, Window

OWN_COLOURS: dict[Part, Colour] = {
    Part.NOSE: (34, 28, 30),
    Part.EYE: (38, 22, 14),
    Part.MOUTH: (52, 24, 26),
    Part.TONGUE: (222, 112, 122),
}
Generator = np.random.Generator
GLOSSY = (Part.NOSE, Part.EYE, Part.TONGUE)


class Light(NamedTuple):
    """From where it comes ([3], unit, in the viewer's frame), how much reaches the shadows, how much more it brings."""

    towards: Floats
    ambient: float
    strength: float


def rendered(
    scene: Scene, window: Window, view: Floats, breed: Breed, colourway: Colourway, light: Light, rng: Generator
) -> Image.Image:
    """The dog as an RGBA image of the window's size, transparent around it."""
    seen, place = scene.drawn(window)
    visible = seen >= 0
    solid = seen[visible]
    part = scene.parts[solid]
    colours = coloured(part, _mapped(scene.coats, solid, place), _turned(view.T, place), colourway, breed.coat, rng)
    inner_ear = tuple((skin + fur) // 2 for skin, fur in zip((206, 150, 140), colourway.base, strict=True))
    for own, colour in {**OWN_COLOURS, Part.INNER_EAR: inner_ear}.items():
        colours[:, part == own] = np.asarray(colour, dtype=np.float32)[:, None]
    normal = _smoothed(_mapped(scene.normals, solid, place), visible, radius=0.024 * window.scale)
    # Fur scatters: the terminator is soft, and the sky fills the upper sides.
    wrapped = np.clip(0.65 * _turned(light.towards[None], normal)[0] + 0.35, 0, 1)
    brightness = light.ambient * (0.82 + 0.18 * normal[1]) + light.strength * wrapped
    colours *= brightness * _nooks(place[2], visible, radius=0.05 * window.scale)
    colours += _sheen(normal, np.isin(part, GLOSSY), breed.coat.gloss, light)

    pixels = np.zeros((window.height, window.width, 4), dtype=np.uint8)
    opaque = np.full((len(solid), 4), 255, dtype=np.uint8)
    opaque[:, :3] = np.clip(colours, 0, 255).T
    pixels[visible] = opaque
    if breed.coat.fall:
        # Hair hangs: what faces up lies flat, what faces down is fringed.
        loose = scene.hair[solid].astype(np.float32) * np.clip(0.55 - 0.45 * normal[1], 0, 1)
        pixels = _ragged(pixels, loose, visible, breed.coat, window.scale, rng)
    image = Image.fromarray(pixels, "RGBA")
    _draw_catchlights(image, scene, seen, window, breed.head.eye * breed.head.skull * window.scale, light)
    return image


def _mapped(maps: NDArray[np.float32], solid: NDArray[np.int16], place: Vectors) -> Vectors:
    """Each point [3, N] under the affine map of the solid that it lies on."""
    m = maps.take(solid, axis=1)
    x, y, z = place
    return np.stack([m[3 * k] * x + m[3 * k + 1] * y + m[3 * k + 2] * z + m[9 + k] for k in range(3)])


def _turned(rows: Floats, vectors: Vectors) -> Vectors:
    """The matrix product [k, 3] x [3, N], without a BLAS: its threads would fight those of the other workers."""
    x, y, z = vectors
    return np.stack([np.float32(a) * x + np.float32(b) * y + np.float32(c) * z for a, b, c in rows.tolist()])


def _unit(vectors: Vectors) -> Vectors:
    x, y, z = vectors
    return vectors / np.sqrt(x * x + y * y + z * z + np.float32(1e-12))


def _smoothed(normal: Vectors, visible: NDArray[np.bool_], radius: float) -> Vectors:
    """Normals averaged over their neighbourhood, so that overlapping solids read as one body."""
    unit = _unit(normal)
    encoded = np.zeros((*visible.shape, 4), dtype=np.uint8)
    values = np.full((unit.shape[1], 4), 255, dtype=np.uint8)
    values[:, :3] = (unit * 100 + 128).T
    encoded[visible] = values
    # The fourth channel counts how much of the neighbourhood is dog.
    around = Image.fromarray(encoded, "RGBX").filter(ImageFilter.BoxBlur(radius))
    blurred = np.asarray(around)[visible].T.astype(np.float32)
    return _unit(blurred[:3] * (255.0 / blurred[3]) - 128.0 + 45.0 * unit)


def _sheen(normal: Vectors, glossy: NDArray[np.bool_], gloss: float, light: Light) -> Vector:
    """Highlights: broad on a coat, small and bright on a nose."""
    half = light.towards + np.array([0.0, 0.0, 1.0])
    aligned = np.clip(_turned(half[None] / np.linalg.norm(half), normal)[0], 0, 1) ** 2
    highlight = (gloss * light.strength) * aligned**4 * aligned
    highlight[glossy] = 120.0 * light.strength * aligned[glossy] ** 12
    return highlight


def _nooks(near: Vector, visible: NDArray[np.bool_], radius: float) -> Vector:
    """Less light where nearer parts surround a point: under the ears, between the legs."""
    low, high = float(near.min()), float(near.max())
    depth = np.zeros(visible.shape, dtype=np.uint8)
    depth[visible] = 1 + (near - low) * (254.0 / max(high - low, 1e-6))
    around = np.asarray(Image.fromarray(depth).filter(ImageFilter.BoxBlur(radius)))[visible].astype(np.float32)
    sunk = (around - depth[visible]) * ((high - low) / 254.0)
    return 1.0 - np.clip(sunk * 3.2, 0.0, 0.45)


def _ragged(
    pixels: NDArray[np.uint8], loose: Vector, visible: NDArray[np.bool_], coat: Coat, scale: float, rng: Generator
) -> NDArray[np.uint8]:
    """Hair breaks outlines and the borders of markings: every pixel is taken from a little up its strand."""
    reach = np.zeros(visible.shape, dtype=np.uint8)
    reach[visible] = loose * 255
    spread = Image.fromarray(reach).filter(ImageFilter.BoxBlur(0.03 * scale))
    amount = np.asarray(spread).astype(np.float32) * (scale / 255.0)
    height, width = visible.shape
    # One cell of the noise is 1/300 of a trunk, whatever the resolution.
    field = noise.covering(noise.grain() if coat.curls else noise.strands(), rng, width, height, 300.0 / scale)
    fall = field if coat.curls else np.abs(field)
    rows = np.clip(np.arange(height)[:, None] - (coat.fall * fall * amount).astype(np.int64), 0, height - 1)
    columns = np.clip(np.arange(width)[None, :] - (coat.tilt * field * amount).astype(np.int64), 0, width - 1)
    return pixels[rows, columns]


def _draw_catchlights(
    image: Image.Image, scene: Scene, seen: NDArray[np.int16], window: Window, radius: float, light: Light
) -> None:
    draw, size = ImageDraw.Draw(image), max(0.30 * radius, 0.6)
    for i in np.flatnonzero(scene.parts == Part.EYE):
        x = (scene.centres[i, 0] - window.left) * window.scale + 0.30 * radius * np.sign(light.towards[0])
        y = (window.top - scene.centres[i, 1]) * window.scale - 0.34 * radius
        if 0 <= x < window.width and 0 <= y < window.height and seen[int(y), int(x)] == i:
            draw.ellipse((x - size, y - size, x + size, y + size), fill=(250, 250, 250, 255))
