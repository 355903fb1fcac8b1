"""Where the dog is: a backdrop with ground, light that suits it, and sometimes something in front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from . import clutter, noise
from .breeds import Colour
from .clutter import Draw, Generator, Thing, one_of, shaded


@dataclass(frozen=True)
class Setting:
    """A kind of place: how to paint it, what grows in front, and how its light is."""

    paint: Callable[[Generator, int, int, float], Image.Image]
    foreground: Colour | None  # of grass, drifts or waves before the dog's feet
    outdoors: bool


def _gradient(top: Colour, bottom: Colour, height: int) -> NDArray[np.float32]:
    """[height, 1, 3]"""
    t = np.linspace(0, 1, max(height, 1), dtype=np.float32)[:, None, None]
    return (1 - t) * np.asarray(top, dtype=np.float32) + t * np.asarray(bottom, dtype=np.float32)


def _painted(
    rng: Generator,
    width: int,
    height: int,
    horizon: float,
    upper: tuple[Colour, Colour],
    lower: tuple[Colour, Colour],
    texture: tuple[float, float],
) -> Image.Image:
    """Two gradients that meet at the horizon (a fraction of the height), each with irregularity of some strength."""
    split = int(np.clip(horizon, 0, 1) * height)
    pixels = np.empty((height, width, 3), dtype=np.float32)
    pixels[:split] = _gradient(*upper, split)[:split]
    pixels[split:] = _gradient(*lower, height - split)[: height - split]
    offset = rng.integers(0, noise.TILE, (3, 2)).tolist()
    clouds = noise.covering(noise.blotches(), width, height, tuple(offset[0]))
    pixels[:split] += (texture[0] * clouds[:split])[:, :, None]
    gravel = noise.covering(noise.grain(), width, height, tuple(offset[1]))
    pixels[split:] += (texture[1] * (0.8 * gravel[split:] + 0.5 * clouds[split:]))[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((96, 150, 212), (190, 214, 232)), ((150, 166, 182), (206, 210, 212)), ((206, 150, 120), (246, 208, 150)),
    ((70, 112, 176), (222, 226, 222)),
)  # fmt: skip


WALLS: tuple[Colour, ...] = (
    (222, 214, 200), (176, 190, 196), (196, 168, 146), (150, 158, 138), (228, 226, 224), (110, 118, 132),
)  # fmt: skip
FLOORS: tuple[Colour, ...] = ((164, 118, 78), (120, 86, 60), (196, 184, 166), (140, 140, 142), (150, 70, 60))
CLOTHS: tuple[Colour, ...] = (
    (190, 190, 188), (70, 74, 82), (150, 170, 190), (200, 170, 140), (120, 60, 60), (60, 90, 80),
)  # fmt: skip


def _sky(rng: Generator) -> tuple[Colour, Colour]:
    top, bottom = SKIES[rng.integers(len(SKIES))]
    return one_of(rng, (top,), 8), one_of(rng, (bottom,), 8)


def _scatter(rng: Generator, draw: Draw, thing: Thing, count: int, width: int, foot: float, height: float) -> None:
    """Several of a thing along a line, each a little nearer or farther."""
    for x in rng.uniform(-0.05, 1.05, count) * width:
        thing(draw, rng, float(x), foot * float(rng.uniform(0.98, 1.06)), height * float(rng.uniform(0.6, 1.3)))


def meadow(rng: Generator, width: int, height: int, horizon: float) -> Image.Image:
    near = one_of(rng, ((96, 140, 60), (128, 150, 72), (84, 118, 58), (160, 152, 90)))
    far = one_of(rng, ((130, 164, 92), (150, 166, 106)))
    image = _painted(rng, width, height, horizon, _sky(rng), (far, near), (5.0, 13.0))
    draw, ground = ImageDraw.Draw(image), horizon * height
    _scatter(rng, draw, clutter.tree, int(rng.integers(0, 4)), width, ground, 0.42 * height)
    _scatter(rng, draw, clutter.bush, int(rng.integers(0, 5)), width, ground, 0.13 * height)
    if rng.random() < 0.3:
        clutter.fence(draw, rng, 0, width, ground + 0.05 * height, 0.2 * height)
    _scatter(rng, draw, clutter.person, int(rng.integers(0, 2)), width, ground + 0.06 * height, 0.45 * height)
    return image


def forest(rng: Generator, width: int, height: int, horizon: float) -> Image.Image:
    dark = one_of(rng, ((44, 60, 40), (70, 82, 52), (96, 86, 52)))
    floor = one_of(rng, ((104, 84, 56), (82, 92, 50), (140, 104, 58)))
    thicket, ground = (shaded(dark, 1.5), dark), (shaded(floor, 0.8), floor)
    image = _painted(rng, width, height, horizon, thicket, ground, (18.0, 18.0))
    draw = ImageDraw.Draw(image)
    for x in rng.uniform(0, width, rng.integers(4, 10)):
        half, bark = width * rng.uniform(0.008, 0.035), shaded(one_of(rng, clutter.WOOD), rng.uniform(0.5, 1.1))
        draw.rectangle((x - half, 0, x + half, height * (horizon + rng.uniform(-0.02, 0.08))), bark)
    _scatter(rng, draw, clutter.bush, int(rng.integers(1, 5)), width, horizon * height, 0.16 * height)
    return image


def beach(rng: Generator, width: int, height: int, horizon: float) -> Image.Image:
    sand = one_of(rng, ((222, 202, 160), (204, 184, 148), (190, 164, 124)))
    image = _painted(rng, width, height, horizon, _sky(rng), (sand, shaded(sand, 0.92)), (5.0, 7.0))
    draw, sea = ImageDraw.Draw(image), one_of(rng, ((60, 120, 150), (84, 140, 150), (96, 118, 132)))
    shore = height * (horizon + rng.uniform(0.08, 0.22))
    draw.rectangle((0, height * (horizon - 0.06), width, shore), sea)
    for y in rng.uniform(height * (horizon - 0.05), shore, 7):
        x = rng.uniform(0, width)
        draw.line([(x, y), (x + width * rng.uniform(0.1, 0.5), y)], shaded(sea, 1.35), 1)
    surf = [(0, shore), (0.4 * width, shore + rng.normal(0, 2)), (width, shore)]
    draw.line(surf, (238, 240, 238), max(2, height // 60))
    _scatter(rng, draw, clutter.person, int(rng.integers(0, 3)), width, shore, 0.28 * height)
    if rng.random() < 0.4:
        clutter.ball(draw, rng, width * rng.uniform(0, 1), height * rng.uniform(0.7, 0.95), 0.1 * height)
    return image


def snow(rng: Generator, width: int, height: int, horizon: float) -> Image.Image:
    near = one_of(rng, ((232, 236, 242), (214, 222, 234), (240, 234, 228)), 5)
    image = _painted(rng, width, height, horizon, _sky(rng), (shaded(near, 0.93), near), (6.0, 5.0))
    draw = ImageDraw.Draw(image)
    _scatter(rng, draw, clutter.tree, int(rng.integers(1, 5)), width, horizon * height, 0.4 * height)
    if rng.random() < 0.3:
        clutter.fence(draw, rng, 0, width, height * (horizon + 0.06), 0.2 * height)
    return image


def room(rng: Generator, width: int, height: int, horizon: float) -> Image.Image:
    wall, floor = one_of(rng, WALLS), one_of(rng, FLOORS)
    image = _painted(rng, width, height, horizon, (shaded(wall, 1.05), wall), (shaded(floor, 0.85), floor), (2.0, 5.0))
    draw, edge = ImageDraw.Draw(image), horizon * height
    for x in np.linspace(-0.5, 1.5, 14) * width:  # boards
        draw.line([(0.5 * width + 0.5 * (x - 0.5 * width), edge), (x, height)], shaded(floor, 0.8), 1)
    draw.rectangle((0, edge - 0.025 * height, width, edge), shaded(wall, 1.15))
    if rng.random() < 0.5:  # a window or an image
        x, y = rng.uniform(0, 0.8) * width, rng.uniform(0.02, 0.15) * height
        wide, tall = rng.uniform(0.15, 0.32) * width, 0.5 * edge
        draw.rectangle((x - 3, y - 3, x + wide + 3, y + tall + 3), (236, 232, 226))
        draw.rectangle((x, y, x + wide, y + tall), one_of(rng, ((170, 206, 232), (200, 150, 90), (90, 110, 90)), 20))
        draw.line([(x + wide / 2, y), (x + wide / 2, y + tall)], (236, 232, 226), 2)
    for thing in (clutter.sofa, clutter.shelf, clutter.plant):
        if rng.random() < 0.45:
            thing(draw, rng, rng.uniform(0, 1) * width, edge + 0.06 * height, height * rng.uniform(0.4, 0.6))
    if rng.random() < 0.5:  # a rug
        left, right = rng.uniform(-0.2, 0.2) * width, rng.uniform(0.8, 1.2) * width
        draw.ellipse((left, edge + 0.12 * height, right, 1.1 * height), one_of(rng, clutter.BRIGHT, 30))
    return image


def pavement(rng: Generator, width: int, height: int, horizon: float) -> Image.Image:
    stone = one_of(rng, ((150, 148, 146), (122, 122, 126), (178, 168, 152), (136, 110, 96)))
    image = _painted(rng, width, height, horizon, _sky(rng), (shaded(stone, 0.9), stone), (3.0, 6.0))
    draw, edge, x = ImageDraw.Draw(image), horizon * height, -0.1 * width
    while x < width:
        wide = width * rng.uniform(0.18, 0.5)
        clutter.building(draw, rng, x, x + wide, edge, edge * rng.uniform(0.5, 1.2))
        x += wide
    for y in edge + (height - edge) * np.linspace(0.1, 1, 5) ** 2:  # slabs
        draw.line([(0, y), (width, y)], shaded(stone, 0.8), 1)
    for x in np.linspace(-1.0, 2.0, 12) * width:
        draw.line([(0.5 * width + 0.4 * (x - 0.5 * width), edge), (x, height)], shaded(stone, 0.8), 1)
    _scatter(rng, draw, clutter.person, int(rng.integers(0, 4)), width, edge + 0.08 * height, 0.5 * height)
    return image


def lake(rng: Generator, width: int, height: int, horizon: float) -> Image.Image:
    water = one_of(rng, ((70, 108, 122), (96, 128, 140), (86, 104, 84)))
    image = _painted(rng, width, height, horizon, _sky(rng), (shaded(water, 1.25), water), (5.0, 6.0))
    draw, edge = ImageDraw.Draw(image), horizon * height
    _scatter(rng, draw, clutter.tree, int(rng.integers(2, 7)), width, edge, 0.3 * height)
    for y in edge + (height - edge) * rng.uniform(0.05, 1, 16):
        x = rng.uniform(-0.1, 1) * width
        draw.line([(x, y), (x + rng.uniform(0.05, 0.3) * width, y)], shaded(water, rng.uniform(0.8, 1.5)), 1)
    return image


def studio(rng: Generator, width: int, height: int, horizon: float) -> Image.Image:
    cloth = one_of(rng, CLOTHS, 20)
    return _painted(rng, width, height, horizon, (shaded(cloth, 0.75), cloth), (cloth, shaded(cloth, 0.9)), (3.0, 2.0))


SETTINGS: tuple[Setting, ...] = (
    Setting(meadow, (104, 142, 62), outdoors=True),
    Setting(meadow, (88, 122, 56), outdoors=True),
    Setting(forest, (92, 104, 52), outdoors=True),
    Setting(beach, (196, 184, 120), outdoors=True),
    Setting(snow, (236, 240, 246), outdoors=True),
    Setting(lake, (90, 110, 60), outdoors=True),
    Setting(pavement, None, outdoors=True),
    Setting(room, None, outdoors=False),
    Setting(room, None, outdoors=False),
    Setting(studio, None, outdoors=False),
)


def draw_foreground(draw: Draw, rng: Generator, setting: Setting, width: int, height: int, feet: float) -> bool:
    """Sometimes let something hide a part of the dog; says whether. `feet` is the row that it stands on."""
    grass = setting.foreground is not None and rng.random() < 0.3
    if setting.foreground is not None and grass:
        tall = height * rng.uniform(0.05, 0.16)
        foot = min(feet + 0.35 * tall, height + 0.2 * tall)
        clutter.blades(draw, rng, 0, width, foot, tall, one_of(rng, (setting.foreground,)))
    chance, floor = rng.random(), min(feet + 0.05 * height, float(height))
    if chance < 0.07:
        clutter.ball(draw, rng, width * rng.uniform(0.15, 0.85), floor, height * rng.uniform(0.09, 0.16))
    elif chance < 0.10:
        x, half = width * rng.uniform(0.1, 0.9), width * rng.uniform(0.012, 0.03)
        draw.rectangle((x - half, height * rng.choice([0.0, 0.45]), x + half, height), one_of(rng, clutter.WOOD))
    elif chance < 0.14:
        clutter.bush(draw, rng, width * rng.choice([0.05, 0.95]), floor, height * rng.uniform(0.15, 0.25))
    return grass or chance < 0.14
