"""Where the dog is: a place with things that stand about, and now and then one in front. None depends on the breed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from . import noise
from .breeds import Colour

Draw = ImageDraw.ImageDraw
Generator = np.random.Generator
Colours = tuple[Colour, ...]
Thing = Callable[[Draw, Generator, float, float, float], None]
"""Draws one of its kind at x, standing on the row `foot`, about `height` pixels high."""

BRIGHT: Colours = (
    (206, 44, 46), (238, 178, 40), (40, 110, 190), (60, 160, 84), (232, 110, 40), (150, 70, 160), (240, 240, 236),
    (52, 56, 66),
)  # fmt: skip
WOOD: Colours = ((120, 84, 54), (92, 66, 46), (160, 122, 84), (70, 52, 40))
LEAVES: Colours = ((62, 98, 44), (88, 122, 52), (44, 78, 46), (120, 132, 58), (150, 104, 44))
STONE: Colours = ((178, 164, 148), (150, 92, 74), (206, 198, 180), (120, 124, 132), (190, 150, 104))
SKY: Colours = ((140, 182, 222), (178, 188, 198), (226, 178, 134), (146, 168, 200))
GRASS: Colours = ((96, 140, 60), (128, 150, 72), (84, 118, 58), (160, 152, 90))
EARTH: Colours = ((104, 84, 56), (82, 92, 50), (140, 104, 58))
SAND: Colours = ((222, 202, 160), (204, 184, 148), (190, 164, 124))
SNOW: Colours = ((232, 236, 242), (214, 222, 234), (240, 234, 228))
WATER: Colours = ((60, 120, 150), (84, 140, 150), (96, 118, 132))
WALL: Colours = ((222, 214, 200), (176, 190, 196), (196, 168, 146), (150, 158, 138), (228, 226, 224), (110, 118, 132))
FLOOR: Colours = ((164, 118, 78), (120, 86, 60), (196, 184, 166), (140, 140, 142), (150, 70, 60))


def one_of(rng: Generator, colours: Colours, spread: float = 14.0) -> Colour:
    """One of the colours, a little off: mostly in lightness, less in hue."""
    chosen = np.asarray(colours[rng.integers(len(colours))]) + rng.normal(0, spread) + rng.normal(0, 0.4 * spread, 3)
    red, green, blue = np.clip(chosen, 0, 255).astype(int).tolist()
    return red, green, blue


def shaded(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue


def tree(draw: Draw, rng: Generator, x: float, foot: float, height: float) -> None:
    half = height * rng.uniform(0.03, 0.07)
    draw.rectangle((x - half, foot - height, x + half, foot), one_of(rng, WOOD))
    leaf = one_of(rng, LEAVES)
    for _ in range(rng.integers(5, 9)):
        radius = height * rng.uniform(0.14, 0.28)
        cx, cy = x + rng.normal(0, 0.2) * height, foot - height * rng.uniform(0.7, 1.2)
        tone = shaded(leaf, rng.uniform(0.75, 1.15))
        draw.ellipse((cx - radius, cy - 0.8 * radius, cx + radius, cy + 0.8 * radius), tone)


def bush(draw: Draw, rng: Generator, x: float, foot: float, height: float) -> None:
    leaf = one_of(rng, LEAVES)
    for _ in range(6):
        radius = height * rng.uniform(0.3, 0.55)
        cx, cy = x + rng.normal(0, 0.5) * height, foot - rng.uniform(0.2, 0.7) * height
        draw.ellipse((cx - radius, cy - radius, cx + radius, cy + 0.9 * radius), shaded(leaf, rng.uniform(0.7, 1.1)))


def block(draw: Draw, rng: Generator, x: float, foot: float, height: float) -> None:
    """A building with windows, or a shelf with things in it."""
    wide = height * rng.uniform(0.3, 0.7)
    draw.rectangle((x - wide, foot - height, x + wide, foot), one_of(rng, STONE + WOOD))
    colour, step = one_of(rng, BRIGHT), max(5.0, height * rng.uniform(0.15, 0.3))
    for top in np.arange(foot - 0.92 * height, foot - 0.15 * height, 0.9 * step):
        for left in np.arange(x - wide + 0.25 * step, x + wide - 0.4 * step, step):
            pane = shaded(colour, rng.uniform(0.5, 1.1))
            draw.rectangle((left, top, left + 0.45 * step, top + 0.55 * step), pane)


def ball(draw: Draw, rng: Generator, x: float, foot: float, height: float) -> None:
    colour = one_of(rng, BRIGHT)
    draw.ellipse((x - 0.5 * height, foot - height, x + 0.5 * height, foot), shaded(colour, 0.8))
    draw.ellipse((x - 0.42 * height, foot - 0.97 * height, x + 0.4 * height, foot - 0.2 * height), colour)


def post(draw: Draw, rng: Generator, x: float, foot: float, height: float) -> None:
    draw.rectangle((x - 0.04 * height, foot - height, x + 0.04 * height, foot), one_of(rng, WOOD))


def blades(draw: Draw, rng: Generator, width: int, foot: float, height: float, colour: Colour) -> None:
    """A row of grass, drifts or waves in front of everything."""
    half = max(0.8, 0.045 * height)
    for x in rng.uniform(0, width, int(np.clip(width / max(1.0, 0.12 * height), 4, 70))):
        tall = height * rng.uniform(0.45, 1.0)
        tip = (x + rng.normal(0, 0.3) * tall, foot - tall)
        draw.polygon([(x - half, foot), (x + half, foot), tip], shaded(colour, rng.uniform(0.6, 1.15)))


@dataclass(frozen=True)
class Setting:
    """A kind of place."""

    above: Colours  # sky or wall
    below: Colours  # ground or floor
    roughness: tuple[float, float]  # of what is above and below
    things: tuple[tuple[Thing, int, float], ...] = ()  # at most so many, of about this part of the image's height
    grows: Colours = ()  # in front of the dog's feet
    outdoors: bool = True


SETTINGS: tuple[Setting, ...] = (
    Setting(SKY, GRASS, (5.0, 13.0), ((tree, 3, 0.42), (bush, 4, 0.13), (block, 1, 0.3)), GRASS),
    Setting(SKY, GRASS, (5.0, 13.0), ((tree, 3, 0.42), (post, 8, 0.2)), GRASS),
    Setting(LEAVES, EARTH, (18.0, 18.0), ((post, 9, 0.9), (tree, 6, 0.6), (bush, 4, 0.16)), GRASS),
    Setting(SKY + WATER, SAND, (6.0, 7.0), ((post, 2, 0.3), (ball, 2, 0.1)), SAND),
    Setting(SKY, SNOW, (6.0, 5.0), ((tree, 4, 0.4), (post, 5, 0.2)), SNOW),
    Setting(SKY, WATER, (5.0, 6.0), ((tree, 6, 0.3), (bush, 4, 0.13)), GRASS),
    Setting(SKY, STONE, (3.0, 6.0), ((block, 6, 0.5), (block, 3, 0.3), (post, 2, 0.4))),
    Setting(WALL, FLOOR, (2.0, 5.0), ((block, 2, 0.5), (bush, 2, 0.15)), outdoors=False),
    Setting(WALL, FLOOR, (2.0, 5.0), ((block, 1, 0.3), (block, 1, 0.6), (ball, 2, 0.1)), outdoors=False),
    Setting(WALL + BRIGHT, WALL, (3.0, 2.0), outdoors=False),
)


def draw_backdrop(rng: Generator, setting: Setting, width: int, height: int, horizon: float) -> Image.Image:
    """Two gradients that meet at the horizon (a fraction of the height), and things on it."""
    split = int(np.clip(horizon, 0, 1) * height)
    pixels = np.empty((height, width, 3), dtype=np.float32)
    halves = (pixels[:split], setting.above, (0.85, 1.1)), (pixels[split:], setting.below, (1.1, 0.9))
    for half, colours, (far, near) in halves:
        half[:] = np.linspace(far, near, len(half))[:, None, None] * np.array(one_of(rng, colours))
    clouds, gravel = (
        noise.covering(noise.blotches(), rng, width, height),
        noise.covering(noise.grain(), rng, width, height),
    )
    pixels[:split] += (setting.roughness[0] * clouds[:split])[:, :, None]
    pixels[split:] += (setting.roughness[1] * (0.8 * gravel + 0.5 * clouds)[split:])[:, :, None]
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for thing, most, size in setting.things:
        for x in rng.uniform(-0.05, 1.05, rng.integers(0, most + 1)) * width:
            thing(draw, rng, x, split + height * rng.uniform(-0.01, 0.06), height * size * rng.uniform(0.6, 1.3))
    return image


def draw_foreground(draw: Draw, rng: Generator, setting: Setting, width: int, height: int, feet: float) -> bool:
    """Sometimes let something hide a part of the dog; says whether. `feet` is the row that it stands on."""
    grown = bool(setting.grows) and rng.random() < 0.25
    if grown:
        tall = height * rng.uniform(0.05, 0.16)
        blades(draw, rng, width, min(feet + 0.35 * tall, height + 0.2 * tall), tall, one_of(rng, setting.grows))
    things: tuple[Thing | None, ...] = (None, ball, post, bush)
    thing = things[rng.choice(4, p=[0.90, 0.05, 0.02, 0.03])]
    if thing is not None:
        size = 0.5 if thing is post else rng.uniform(0.1, 0.2)
        thing(draw, rng, width * rng.uniform(0.05, 0.95), min(feet + 0.05 * height, float(height)), size * height)
    return grown or thing is not None
