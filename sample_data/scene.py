"""Where the dog is: a place with things that stand about. Nothing here depends on the breed."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from . import noise
from .breeds import Colour

Draw = ImageDraw.ImageDraw
Generator = np.random.Generator
Colours = tuple[Colour, ...]

SKY: Colours = ((140, 182, 222), (178, 188, 198), (226, 178, 134), (62, 98, 44), (88, 122, 52), (84, 140, 150))
GROUND: Colours = (
    (96, 140, 60), (128, 150, 72), (160, 152, 90), (104, 84, 56), (82, 92, 50), (222, 202, 160), (190, 164, 124),
    (232, 236, 242), (60, 120, 150), (150, 148, 146),
)  # fmt: skip
WALL: Colours = ((222, 214, 200), (176, 190, 196), (196, 168, 146), (150, 158, 138), (206, 44, 46), (110, 118, 132))
FLOOR: Colours = ((164, 118, 78), (120, 86, 60), (196, 184, 166), (140, 140, 142), (150, 70, 60))
WOOD: Colours = ((120, 84, 54), (92, 66, 46), (160, 122, 84), (70, 52, 40))
LEAVES: Colours = ((62, 98, 44), (88, 122, 52), (44, 78, 46), (120, 132, 58), (150, 104, 44))
BRIGHT: Colours = ((206, 44, 46), (238, 178, 40), (40, 110, 190), (60, 160, 84), (232, 110, 40), (178, 164, 148))


def one_of(rng: Generator, colours: Colours, spread: float = 14.0) -> Colour:
    """One of the colours, a little off: mostly in lightness, less in hue."""
    chosen = np.asarray(colours[rng.integers(len(colours))]) + rng.normal(0, spread) + rng.normal(0, 0.4 * spread, 3)
    red, green, blue = np.clip(chosen, 0, 255).astype(int).tolist()
    return red, green, blue


def plant(draw: Draw, rng: Generator, x: float, foot: float, height: float) -> None:
    """A tree or a bush: a trunk and a crown, at x on the row `foot`, about `height` pixels high."""
    draw.rectangle((x - 0.05 * height, foot - 0.8 * height, x + 0.05 * height, foot), one_of(rng, WOOD))
    crown = one_of(rng, LEAVES)
    for _ in range(6):
        radius = height * rng.uniform(0.15, 0.3)
        cx, cy = x + rng.normal(0, 0.25) * height, foot - height * rng.uniform(0.5, 1.1)
        draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), one_of(rng, (crown,)))


def block(draw: Draw, rng: Generator, x: float, foot: float, height: float) -> None:
    """A building with windows, or a shelf with things in it."""
    wide = height * rng.uniform(0.2, 0.7)
    draw.rectangle((x - wide, foot - height, x + wide, foot), one_of(rng, WOOD + FLOOR))
    colour, step = one_of(rng, BRIGHT), max(5.0, height * rng.uniform(0.15, 0.3))
    for top in np.arange(foot - 0.92 * height, foot - 0.15 * height, 0.9 * step):
        for left in np.arange(x - wide + 0.25 * step, x + wide - 0.4 * step, step):
            draw.rectangle((left, top, left + 0.45 * step, top + 0.55 * step), one_of(rng, (colour,)))


def draw_backdrop(rng: Generator, width: int, height: int, horizon: int) -> Image.Image:
    """Sky and ground, or wall and floor: two gradients that meet at the row `horizon`, and things on it."""
    outdoors = rng.random() < 0.7
    pixels = np.empty((height, width, 3), dtype=np.float32)
    above, below = pixels[:horizon], pixels[horizon:]
    above[:] = np.linspace(0.85, 1.1, len(above))[:, None, None] * np.array(one_of(rng, SKY if outdoors else WALL))
    below[:] = np.linspace(1.1, 0.9, len(below))[:, None, None] * np.array(one_of(rng, GROUND if outdoors else FLOOR))
    clouds, gravel = (noise.covering(field, rng, width, height)[:, :, None] for field in (noise.BLOTCHES, noise.GRAIN))
    above += rng.uniform(2, 12) * clouds[:horizon]
    below += rng.uniform(2, 12) * (0.8 * gravel + 0.5 * clouds)[horizon:]
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 9)):
        thing = plant if rng.random() < (0.7 if outdoors else 0.2) else block
        x, foot = width * rng.uniform(-0.05, 1.05), horizon + height * rng.uniform(-0.01, 0.06)
        thing(draw, rng, x, foot, height * rng.uniform(0.1, 0.55))
    return image
