"""One image of a dog, from nothing but a breed and a random generator."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from . import noise
from .anatomy import dog
from .breeds import Breed
from .clutter import BRIGHT, one_of
from .pose import SHOTS, Shot, sample_camera, sample_pose
from .render import Light, Window, rendered
from .scenes import SETTINGS, draw_foreground
from .solids import Part, Scene, normalised

RENDERED_PIXELS = 40_000  # of a dog before it is averaged down: the larger it is, the fewer for each pixel
HEAD = (Part.SKULL, Part.MUZZLE, Part.EAR, Part.NOSE)
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

ASPECTS = (1.0, 5 / 4, 4 / 3, 4 / 5, 3 / 4)
ASPECT_ODDS = (0.3, 0.25, 0.2, 0.15, 0.1)


@dataclass(frozen=True)
class Framing:
    """Pixels per unit of length, and where in the image (from its top left) the dog's plane has its zero."""

    scale: float
    x: float
    y: float


def draw_image(breed: Breed, rng: np.random.Generator, size: tuple[int, int]) -> bytes:
    """A JPEG of a dog of this breed whose longer side measures size[0] to size[1] pixels."""
    width, height = _sample_size(rng, size)
    shot = SHOTS[rng.choice(3, p=[0.62, 0.24, 0.14])]
    camera = sample_camera(rng, shot)
    pose = sample_pose(rng, shot, camera)
    scene = dog(breed, pose, camera, collared=bool(rng.random() < 0.35)).seen_from(camera.axes())
    framing = _sample_framing(rng, scene, shot, width, height)
    setting = SETTINGS[rng.integers(len(SETTINGS))]

    feet = framing.y - scene.box()[1] * framing.scale
    horizon = float(np.clip(rng.uniform(0.3, 0.62), 0.12, max(0.2, 0.92 * feet / height)))
    # Painted small and enlarged: out of focus as a backdrop is, and cheap.
    focus = rng.uniform(0.18, 0.6)
    backdrop = setting.paint(rng, int(focus * width), int(focus * height), horizon)
    backdrop = ImageEnhance.Color(backdrop).enhance(float(rng.uniform(0.35, 0.8)))
    backdrop = backdrop.filter(ImageFilter.BoxBlur(0.6)).resize((width, height), Image.Resampling.BICUBIC)

    sun = rng.choice([-1, 1]) * rng.uniform(0.2, 0.8)
    towards = np.array([sun, rng.uniform(0.5, 0.95), rng.uniform(0.35, 0.8)])
    light = Light(normalised(towards), ambient=float(rng.uniform(0.34, 0.5)), strength=float(rng.uniform(0.5, 0.75)))
    shares = np.array([colourway.share for colourway in breed.colourways])
    colourway = breed.colourways[rng.choice(len(shares), p=shares / shares.sum())]

    box = _window(scene, framing, width, height)
    area = max(1, (box[2] - box[0]) * (box[3] - box[1]))
    sampling = float(np.clip(np.sqrt(RENDERED_PIXELS / area), 1.15, 2.0))
    window = Window(
        left=(box[0] - framing.x) / framing.scale,
        top=(framing.y - box[1]) / framing.scale,
        scale=sampling * framing.scale,
        width=round(sampling * (box[2] - box[0])),
        height=round(sampling * (box[3] - box[1])),
    )
    cutout = rendered(scene, window, camera.axes(), breed, colourway, one_of(rng, BRIGHT), light, rng)
    if shot != "portrait":
        lifted = pose.stance == "running" and rng.random() < 0.5
        _cast_shadow(backdrop, cutout, box, feet + (0.05 * height if lifted else 0), sun, rng)

    # RGBa is colour times opacity: averaged down in it, nothing of the transparent surroundings bleeds into the edges.
    cutout = cutout.convert("RGBa").resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.HAMMING).convert("RGBA")
    backdrop.paste(cutout, box[:2], cutout)
    layer = Image.new("RGBA", (2 * width, 2 * height))
    if draw_foreground(ImageDraw.Draw(layer), rng, setting, *layer.size, 2 * feet):
        layer = layer.convert("RGBa").reduce(2).convert("RGBA")
        backdrop.paste(layer, (0, 0), layer)
    stream = io.BytesIO()
    _photographed(backdrop, rng, setting.outdoors).save(stream, "JPEG", quality=int(rng.integers(62, 94)))
    return stream.getvalue()


def _sample_size(rng: np.random.Generator, size: tuple[int, int]) -> tuple[int, int]:
    longer = int(rng.integers(size[0], size[1] + 1))
    aspect = ASPECTS[rng.choice(len(ASPECTS), p=ASPECT_ODDS)]
    return (longer, round(longer / aspect)) if aspect >= 1 else (round(longer * aspect), longer)


def _sample_framing(rng: np.random.Generator, scene: Scene, shot: Shot, width: int, height: int) -> Framing:
    """Fill the image more or less with the dog or its head; what does not fit is cut off."""
    left, bottom, right, top = scene.box(HEAD if shot == "portrait" else None)
    fit = min(width / (right - left), height / (top - bottom))
    scale = fit * rng.uniform(0.6, 0.85) if shot == "portrait" else fit * rng.uniform(0.8, 1.04)
    slack_x, slack_y = width - scale * (right - left), height - scale * (top - bottom)
    down = rng.uniform(0.2, 0.7) if shot == "portrait" else rng.uniform(0.4, 0.85)
    return Framing(scale, slack_x * rng.uniform(0.25, 0.75) - left * scale, slack_y * down + top * scale)


def _window(scene: Scene, framing: Framing, width: int, height: int) -> Box:
    """Left, top, right, bottom of the piece of the image that the dog can touch, with room for its hair."""
    left, bottom, right, top = scene.box()
    room = 0.08 * framing.scale
    return (
        max(0, int(framing.x + left * framing.scale - room)),
        max(0, int(framing.y - top * framing.scale - room)),
        min(width, int(framing.x + right * framing.scale + room) + 1),
        min(height, int(framing.y - bottom * framing.scale + room) + 1),
    )


def _cast_shadow(
    backdrop: Image.Image, cutout: Image.Image, box: Box, feet: float, sun: float, rng: np.random.Generator
) -> None:
    """The dog's outline, laid on the ground away from the sun."""
    width, height = box[2] - box[0], box[3] - box[1]
    flat = max(2, int(height * rng.uniform(0.12, 0.26)))
    outline = cutout.getchannel("A").resize((width, flat))
    lean = -0.9 * sun
    margin = int(flat * abs(lean)) + 4
    # Row `flat` (the feet) stays, the rows above it slide sideways.
    slide = (1, -lean, lean * flat - margin, 0, 1, -2)
    slid = outline.transform((width + 2 * margin, flat + 6), Image.Transform.AFFINE, slide, Image.Resampling.BILINEAR)
    strength = float(rng.uniform(0.25, 0.55))
    mask = slid.filter(ImageFilter.BoxBlur(2)).point(lambda value: int(value * strength))
    backdrop.paste((18, 20, 30), (box[0] - margin, int(feet) - flat - 1), mask)


def _photographed(image: Image.Image, rng: np.random.Generator, outdoors: bool) -> Image.Image:
    """Add what a camera adds: exposure, colour cast, blur, vignette, noise."""
    if rng.random() < 0.35:
        image = image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.2, 0.8))))
    width, height = image.size
    pixels = np.asarray(image).astype(np.float32)

    warmth = rng.normal(0.0 if outdoors else 0.04, 0.04)
    gains = np.array([1 + warmth, 1 + rng.normal(0, 0.015), 1 - warmth]) * rng.uniform(0.85, 1.12)
    pixels *= gains.astype(np.float32)
    light = _uneven_light(rng, width, height, outdoors)
    pixels *= light[:, :, None]
    contrast = rng.uniform(0.9, 1.15)
    pixels -= np.float32(118 * (1 - 1 / contrast))
    pixels *= np.float32(contrast)

    strength = rng.uniform(1.0, 5.0)
    offset = rng.integers(0, noise.TILE, 2).tolist()
    grain = noise.covering(noise.tile(0.0, 0.0, seed=3), width, height, (offset[0], offset[1]))
    pixels += (strength * grain)[:, :, None]
    np.clip(pixels, 0, 255, out=pixels)
    return Image.fromarray(pixels.astype(np.uint8))


def _uneven_light(rng: np.random.Generator, width: int, height: int, outdoors: bool) -> NDArray[np.float32]:
    """Vignette, a fall-off to one side, and dappled shade: a factor for each pixel."""
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle, fall = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.15)
    factor = 1 - rng.uniform(0, 0.16) * (x * x + y * y) + fall * (np.cos(angle) * x + np.sin(angle) * y)
    if outdoors and rng.random() < 0.25:
        size = rng.uniform(0.9, 2.0)
        rows = np.arange(height) * (size * 60 / height) + rng.integers(noise.TILE)
        columns = np.arange(width) * (size * 60 / height) + rng.integers(noise.TILE)
        shade = np.clip(noise.looked_up(noise.blotches(), columns, rows[:, None]) * 0.55 + 0.5, 0, 1)
        factor = factor * (1 - np.float32(rng.uniform(0.15, 0.5)) * shade)
    return factor.astype(np.float32)
