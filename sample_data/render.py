"""From solids to a cut-out image of a dog: light on fur, ragged outlines, eyes that catch the light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from . import noise
from .breeds import Breed, Colour, Colourway
from .coats import Surface, coloured
from .solids import LAST_COATED, Buffers, Floats, Part, Scene

OWN_COLOURS: dict[Part, Colour] = {
    Part.NOSE: (34, 28, 30),
    Part.EYE: (38, 22, 14),
    Part.MOUTH: (52, 24, 26),
    Part.TONGUE: (222, 112, 122),
    Part.INNER_EAR: (206, 150, 140),
    Part.COLLAR: (200, 40, 40),
}
Vectors = NDArray[np.float32]
"""Three rows, one column for each visible point: arithmetic on rows is the fastest there is here."""

GLOSSY = (Part.NOSE, Part.EYE, Part.TONGUE)


@dataclass(frozen=True)
class Light:
    towards: Floats  # [3], unit, in the viewer's frame
    ambient: float  # 0 to 1: how much reaches the shadows
    strength: float


@dataclass(frozen=True)
class Window:
    """The piece of the image's plane that is drawn: its top left corner, size, and pixels per unit of length."""

    left: float
    top: float
    scale: float
    width: int
    height: int


def rendered(
    scene: Scene,
    window: Window,
    view: Floats,
    breed: Breed,
    colourway: Colourway,
    collar: Colour,
    light: Light,
    rng: np.random.Generator,
) -> Image.Image:
    """The dog as an RGBA image of the window's size, transparent around it."""
    buffers = scene.drawn(window.left, window.top, window.scale, window.width, window.height)
    visible = buffers.seen >= 0
    solid = buffers.seen[visible]
    rows, columns = np.nonzero(visible)
    place = np.stack([buffers.xs[columns], buffers.ys[rows], buffers.near[visible]])

    part = scene.parts[solid]
    normal = _mapped(scene.normals, scene.normal_origins, solid, place)
    coat_at = _mapped(scene.coat_maps, scene.coat_origins, solid, place)
    colours = _colours(part, coat_at, _combined(view.T, place), breed, colourway, collar, rng)
    normal = _smoothed(normal, visible, radius=0.022 * window.scale)
    colours *= _brightness(normal, light) * _nooks(buffers, visible, radius=0.05 * window.scale)
    colours += _sheen(normal, part, breed, light)

    pixels = np.zeros((window.height, window.width, 4), dtype=np.uint8)
    opaque = np.full((len(solid), 4), 255, dtype=np.uint8)
    opaque[:, :3] = np.clip(colours, 0, 255).T
    pixels[visible] = opaque
    # Hair hangs: what faces up lies flat, what faces down is fringed.
    loose = scene.hair[solid].astype(np.float32) * np.clip(0.55 - 0.45 * normal[1], 0, 1)
    pixels = _ragged(pixels, loose, visible, breed, window.scale, rng)
    image = Image.fromarray(pixels, "RGBA")
    _draw_catchlights(image, scene, buffers, window, breed, light)
    return image


def _mapped(matrices: Floats, origins: Floats, solid: NDArray[np.int16], place: Vectors) -> Vectors:
    """Each point [3, N] under the affine map of the solid it lies on."""
    table = np.concatenate([matrices.reshape(-1, 9), origins], axis=1).T.astype(np.float32)
    m = table.take(solid, axis=1)
    x, y, z = place
    return np.stack([m[3 * k] * x + m[3 * k + 1] * y + m[3 * k + 2] * z + m[9 + k] for k in range(3)])


def _combined(rows: Floats, vectors: Vectors) -> Vectors:
    """The matrix product [k, 3] x [3, N], without a BLAS: its threads would fight those of the other workers."""
    x, y, z = vectors
    return np.stack([np.float32(a) * x + np.float32(b) * y + np.float32(c) * z for a, b, c in rows.tolist()])


def _colours(
    part: NDArray[np.int64],
    coat_at: Vectors,
    place: Vectors,
    breed: Breed,
    colourway: Colourway,
    collar: Colour,
    rng: np.random.Generator,
) -> Vectors:
    colours = coloured(Surface(part, coat_at[0], coat_at[1], coat_at[2], place), colourway, breed.coat, rng)
    table = np.zeros((3, len(Part)), dtype=np.float32)
    for own, colour in (OWN_COLOURS | {Part.COLLAR: collar}).items():
        table[:, own] = colour
    # The skin of an ear takes after the coat.
    table[:, Part.INNER_EAR] = 0.5 * table[:, Part.INNER_EAR] + 0.5 * np.asarray(colourway.base)
    bare = part > LAST_COATED
    colours[:, bare] = table[:, part[bare]]
    return colours


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


def _brightness(normal: Vectors, light: Light) -> NDArray[np.float32]:
    # Fur scatters: the terminator is soft, and the sky fills the upper sides.
    wrapped = np.clip(0.65 * (_combined(light.towards[None], normal)[0]) + 0.35, 0, 1)
    return light.ambient * (0.82 + 0.18 * normal[1]) + light.strength * wrapped


def _sheen(normal: Vectors, part: NDArray[np.int64], breed: Breed, light: Light) -> NDArray[np.float32]:
    """Highlights: broad on a smooth coat, small and bright on a nose."""
    half = light.towards + np.array([0.0, 0.0, 1.0])
    half /= np.linalg.norm(half)
    aligned = np.square(np.clip(_combined(half[None], normal)[0], 0, 1))
    gloss = 34.0 if breed.coat.kind == "smooth" else 16.0
    highlight = (gloss * light.strength) * aligned**4 * aligned
    glossy = np.isin(part, GLOSSY)
    highlight[glossy] = 120.0 * light.strength * aligned[glossy] ** 12
    return highlight


def _nooks(buffers: Buffers, visible: NDArray[np.bool_], radius: float) -> NDArray[np.float32]:
    """Less light where nearer parts surround a point: under the ears, between the legs."""
    near = buffers.near[visible]
    low, high = float(near.min()), float(near.max())
    depth = np.zeros(visible.shape, dtype=np.uint8)
    depth[visible] = 1 + (near - low) * (254.0 / max(high - low, 1e-6))
    around = np.asarray(Image.fromarray(depth).filter(ImageFilter.BoxBlur(radius)))[visible].astype(np.float32)
    sunk = (around - depth[visible]) * ((high - low) / 254.0)
    return 1.0 - np.clip(sunk * 3.2, 0.0, 0.45)


def _ragged(
    pixels: NDArray[np.uint8],
    loose: NDArray[np.float32],
    visible: NDArray[np.bool_],
    breed: Breed,
    scale: float,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Hair breaks outlines and the borders of markings: every pixel is taken from a little up its strand."""
    coat = breed.coat
    if coat.length < 0.1:
        return pixels
    reach = np.zeros(visible.shape, dtype=np.uint8)
    reach[visible] = (loose * 255).astype(np.uint8)
    spread = Image.fromarray(reach).filter(ImageFilter.BoxBlur(0.03 * scale))
    amount = np.asarray(spread).astype(np.float32) * (scale / 255.0)
    height, width = visible.shape
    # One cell of the noise is 1/300 of a trunk, whatever the resolution.
    step = 300.0 / scale
    offset = rng.integers(0, noise.TILE, 2)
    across = (np.arange(width) * step + offset[0]).astype(np.int64) % noise.TILE
    down = (np.arange(height) * step + offset[1]).astype(np.int64) % noise.TILE
    if coat.kind == "curly":
        first, second = noise.grain(), noise.tile(4.0, 4.0, 7)
        tilt, length = first[down[:, None], across] * 0.022, second[down[:, None], across] * 0.022
    else:
        length = np.abs(noise.strands()[down[:, None], across]) * (0.04 if coat.kind == "feathered" else 0.03)
        tilt = noise.strands()[down[:, None], across] * 0.012
        if coat.kind == "double":  # stands off all around, not only downwards
            length = noise.grain()[down[:, None], across] * 0.016
            tilt = noise.tile(4.0, 4.0, 7)[down[:, None], across] * 0.016
    rows = np.clip(np.arange(height)[:, None] - (length * amount).astype(np.int64), 0, height - 1)
    columns = np.clip(np.arange(width)[None, :] - (tilt * amount).astype(np.int64), 0, width - 1)
    return pixels[rows, columns]


def _draw_catchlights(
    image: Image.Image, scene: Scene, buffers: Buffers, window: Window, breed: Breed, light: Light
) -> None:
    draw = ImageDraw.Draw(image)
    radius = breed.head.eye * breed.head.skull * window.scale
    for i in np.flatnonzero(scene.parts == Part.EYE):
        x = (scene.centres[i, 0] - window.left) * window.scale + 0.30 * radius * np.sign(light.towards[0])
        y = (window.top - scene.centres[i, 1]) * window.scale - 0.34 * radius
        inside = 0 <= x < window.width and 0 <= y < window.height
        if inside and buffers.seen[int(y), int(x)] == i:
            size = max(0.30 * radius, 0.6)
            draw.ellipse((x - size, y - size, x + size, y + size), fill=(250, 250, 250, 255))
