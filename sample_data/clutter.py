"""Things that stand about: behind the dog, and now and then in front of it. None of them depends on the breed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import ImageDraw

from .breeds import Colour

Draw = ImageDraw.ImageDraw
Generator = np.random.Generator
Thing = Callable[[Draw, Generator, float, float, float], None]
"""Draws one of its kind at x, standing on the row `foot`, about `height` pixels high."""

BRIGHT: tuple[Colour, ...] = (
    (206, 44, 46), (238, 178, 40), (40, 110, 190), (60, 160, 84), (232, 110, 40), (150, 70, 160), (240, 240, 236),
    (52, 56, 66),
)  # fmt: skip
WOOD: tuple[Colour, ...] = ((120, 84, 54), (92, 66, 46), (160, 122, 84), (70, 52, 40))
SKIN: tuple[Colour, ...] = ((236, 196, 170), (198, 150, 118), (140, 96, 70), (92, 62, 48))
LEAVES: tuple[Colour, ...] = ((62, 98, 44), (88, 122, 52), (44, 78, 46), (120, 132, 58), (150, 104, 44))


def one_of(rng: Generator, colours: tuple[Colour, ...], spread: float = 14.0) -> Colour:
    """One of the colours, a little off: mostly in lightness, less in hue."""
    chosen = np.asarray(colours[rng.integers(len(colours))]) + rng.normal(0, spread) + rng.normal(0, 0.4 * spread, 3)
    red, green, blue = np.clip(chosen, 0, 255).astype(int).tolist()
    return red, green, blue


def shaded(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue


def tree(draw: Draw, rng: Generator, x: float, foot: float, height: float) -> None:
    trunk, leaf = one_of(rng, WOOD), one_of(rng, LEAVES)
    half = height * rng.uniform(0.03, 0.07)
    crown = foot - height
    draw.polygon([(x - half, foot), (x - 0.7 * half, crown), (x + 0.7 * half, crown), (x + half, foot)], trunk)
    if rng.random() < 0.35:  # a conifer
        for k in range(4):
            top, wide = foot - height * (1.25 - 0.22 * k), height * (0.10 + 0.08 * k)
            base = top + 0.42 * height
            draw.polygon([(x, top), (x - wide, base), (x + wide, base)], shaded(leaf, 0.8 + 0.08 * k))
        return
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


def person(draw: Draw, rng: Generator, x: float, foot: float, height: float) -> None:
    trousers, shirt = one_of(rng, BRIGHT, 30), one_of(rng, BRIGHT, 30)
    skin, hair = one_of(rng, SKIN), one_of(rng, WOOD)
    hip, shoulder, crown = foot - 0.48 * height, foot - 0.82 * height, foot - height
    stride, wide = rng.uniform(0.01, 0.09) * height, 0.12 * height
    for side in (-1, 1):
        thigh, ankle, thick = x + side * 0.02 * height, x + side * (0.04 * height + stride), 0.045 * height
        seam = [
            (thigh - 0.06 * height, hip),
            (thigh + 0.06 * height, hip),
            (ankle + thick, foot),
            (ankle - thick, foot),
        ]
        draw.polygon(seam, trousers)
        draw.ellipse((ankle - 1.2 * thick, foot - thick, ankle + 1.8 * thick, foot + 0.5 * thick), (40, 34, 34))
    draw.rounded_rectangle((x - wide, shoulder, x + wide, hip + 0.04 * height), 0.06 * height, shirt)
    for side in (-1, 1):
        hand = x + side * (wide + rng.uniform(0.0, 0.08) * height)
        arm = [(x + side * 0.9 * wide, shoulder + 0.05 * height), (hand, hip)]
        draw.line(arm, shaded(shirt, 0.85), max(1, int(0.06 * height)))
    draw.ellipse((x - 0.055 * height, crown, x + 0.055 * height, shoulder - 0.02 * height), skin)
    draw.chord((x - 0.06 * height, crown - 0.01 * height, x + 0.06 * height, crown + 0.11 * height), 170, 370, hair)


def ball(draw: Draw, rng: Generator, x: float, foot: float, height: float) -> None:
    colour, radius = one_of(rng, BRIGHT), 0.5 * height
    draw.ellipse((x - radius, foot - height, x + radius, foot), shaded(colour, 0.8))
    draw.ellipse((x - 0.85 * radius, foot - 0.97 * height, x + 0.8 * radius, foot - 0.2 * height), colour)
    if rng.random() < 0.5:
        seam = (x - 1.4 * radius, foot - height, x + 0.4 * radius, foot)
        draw.arc(seam, -60, 60, shaded(colour, 1.5), max(1, int(0.12 * radius)))


def fence(draw: Draw, rng: Generator, left: float, right: float, foot: float, height: float) -> None:
    colour = one_of(rng, (*WOOD, (226, 222, 214)))
    gap = height * rng.uniform(0.25, 0.6)
    thick = max(1.0, 0.10 * height)
    for level in (0.35, 0.8):
        draw.rectangle((left, foot - level * height - thick, right, foot - level * height), shaded(colour, 0.9))
    for x in np.arange(left + rng.uniform(0, gap), right, gap):
        draw.rectangle((x, foot - height, x + thick, foot), colour)


def building(draw: Draw, rng: Generator, left: float, right: float, foot: float, height: float) -> None:
    wall = one_of(rng, ((178, 164, 148), (150, 92, 74), (206, 198, 180), (120, 124, 132), (190, 150, 104)))
    draw.rectangle((left, foot - height, right, foot), wall)
    pane = one_of(rng, ((70, 86, 104), (44, 50, 60), (196, 190, 150)))
    step = max(6.0, (right - left) / rng.integers(2, 5))
    for y in np.arange(foot - 0.92 * height, foot - 0.15 * height, 0.9 * step):
        for x in np.arange(left + 0.25 * step, right - 0.4 * step, step):
            draw.rectangle((x, y, x + 0.45 * step, y + 0.55 * step), pane)


def sofa(draw: Draw, rng: Generator, x: float, foot: float, height: float) -> None:
    colour = one_of(rng, (*BRIGHT, *WOOD), 24)
    wide = height * rng.uniform(0.9, 1.3)
    draw.rounded_rectangle((x - wide, foot - height, x + wide, foot), 0.14 * height, shaded(colour, 0.8))
    seat = (x - 0.85 * wide, foot - 0.5 * height, x + 0.85 * wide, foot - 0.12 * height)
    draw.rounded_rectangle(seat, 0.1 * height, colour)
    for side in (-1, 1):
        arm = x + side * wide
        rest = (arm - 0.13 * wide, foot - 0.65 * height, arm + 0.13 * wide, foot)
        draw.rounded_rectangle(rest, 0.1 * height, shaded(colour, 0.9))
    if rng.random() < 0.6:
        cx, size = x + rng.uniform(-0.5, 0.5) * wide, 0.32 * height
        cushion = (cx - size, foot - 0.9 * height, cx + size, foot - 0.42 * height)
        draw.rounded_rectangle(cushion, 0.3 * size, one_of(rng, BRIGHT, 24))


def shelf(draw: Draw, rng: Generator, x: float, foot: float, height: float) -> None:
    wood, wide = one_of(rng, WOOD), 0.32 * height
    draw.rectangle((x - wide, foot - height, x + wide, foot), shaded(wood, 0.75))
    for level in np.linspace(0.05, 0.8, 4):
        base = foot - level * height
        draw.rectangle((x - wide, base, x + wide, base + 0.03 * height), wood)
        at = x - 0.9 * wide
        while at < x + 0.75 * wide:
            thick, tall = wide * rng.uniform(0.07, 0.2), height * rng.uniform(0.09, 0.18)
            draw.rectangle((at, base - tall, at + thick, base), one_of(rng, BRIGHT, 34))
            at += 1.15 * thick + (wide * 0.4 if rng.random() < 0.15 else 0)


def plant(draw: Draw, rng: Generator, x: float, foot: float, height: float) -> None:
    pot, leaf = one_of(rng, ((176, 92, 58), (220, 214, 204), (70, 74, 84))), one_of(rng, LEAVES)
    wide = 0.16 * height
    for angle in rng.uniform(-1.1, 1.1, 7):
        tip = (x + 0.55 * height * np.sin(angle), foot - 0.3 * height - 0.65 * height * np.cos(angle))
        mid = (0.5 * (x + tip[0]) + 0.09 * height, 0.5 * (foot - 0.3 * height + tip[1]))
        draw.polygon([(x, foot - 0.28 * height), mid, tip], shaded(leaf, rng.uniform(0.75, 1.2)))
    rim = foot - 0.3 * height
    draw.polygon([(x - wide, rim), (x + wide, rim), (x + 0.75 * wide, foot), (x - 0.75 * wide, foot)], pot)


def blades(draw: Draw, rng: Generator, left: float, right: float, foot: float, height: float, colour: Colour) -> None:
    """A row of grass in front of everything."""
    count = int(np.clip((right - left) / max(1.0, 0.12 * height), 4, 70))
    half = max(0.8, 0.045 * height)
    for x in rng.uniform(left, right, count):
        tall, lean = height * rng.uniform(0.45, 1.0), rng.normal(0, 0.3)
        tip = (x + lean * tall, foot - tall)
        draw.polygon([(x - half, foot), (x + half, foot), tip], shaded(colour, rng.uniform(0.6, 1.15)))
