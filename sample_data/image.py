"""One image of a dog, from nothing but a breed and a random generator."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from . import noise
from .anatomy import dog
from .breeds import Breed
from .pose import SHOTS, sample_camera, sample_pose
from .render import Light, rendered
from .scene import SETTINGS, draw_backdrop, draw_foreground
from .solids import Part, Scene, Window, normalised

RENDERED_PIXELS = 40_000  # of a dog before it is averaged down: the larger it is, the fewer for each pixel
HEAD = (Part.SKULL, Part.MUZZLE, Part.EAR, Part.NOSE)
ASPECTS = (1.0, 5 / 4, 4 / 3, 4 / 5, 3 / 4)
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


def draw_image(breed: Breed, rng: np.random.Generator, size: tuple[int, int]) -> bytes:
    """A JPEG of a dog of this breed whose longer side measures size[0] to size[1] pixels."""
    longer, aspect = int(rng.integers(size[0], size[1] + 1)), rng.choice(ASPECTS)
    width, height = (longer, round(longer / aspect)) if aspect >= 1 else (round(longer * aspect), longer)
    shot = str(rng.choice(list(SHOTS), p=[share for share, _ in SHOTS.values()]))
    camera = sample_camera(rng, shot)
    pose = sample_pose(rng, shot, camera)
    scene = dog(breed, pose, camera).seen_from(camera.axes())
    view = _sample_framing(rng, scene, shot == "portrait", width, height)
    setting = SETTINGS[rng.integers(len(SETTINGS))]

    feet = (view.top - scene.box()[1]) * view.scale
    horizon = float(np.clip(rng.uniform(0.3, 0.62), 0.12, max(0.2, 0.92 * feet / height)))
    # Painted small and enlarged: out of focus as a backdrop is, and cheap.
    focus = rng.uniform(0.18, 0.6)
    backdrop = draw_backdrop(rng, setting, int(focus * width), int(focus * height), horizon)
    backdrop = ImageEnhance.Color(backdrop).enhance(float(rng.uniform(0.35, 0.7)))
    backdrop = backdrop.filter(ImageFilter.BoxBlur(0.6)).resize((width, height), Image.Resampling.BICUBIC)

    sun = rng.choice([-1, 1]) * rng.uniform(0.2, 0.8)
    towards = normalised(np.array([sun, rng.uniform(0.5, 0.95), rng.uniform(0.35, 0.8)]))
    light = Light(towards, ambient=rng.uniform(0.34, 0.5), strength=rng.uniform(0.5, 0.75))
    shares = np.array([colourway.share for colourway in breed.colourways])
    colourway = breed.colourways[rng.choice(len(shares), p=shares / shares.sum())]

    box = _box(scene, view)
    sampling = float(np.clip(np.sqrt(RENDERED_PIXELS / max(1, (box[2] - box[0]) * (box[3] - box[1]))), 1.15, 2.0))
    window = Window(
        left=view.left + box[0] / view.scale,
        top=view.top - box[1] / view.scale,
        scale=sampling * view.scale,
        width=round(sampling * (box[2] - box[0])),
        height=round(sampling * (box[3] - box[1])),
    )
    cutout = rendered(scene, window, camera.axes(), breed, colourway, light, rng)
    if shot != "portrait":
        _cast_shadow(backdrop, cutout, box, feet, sun, rng)
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


def _sample_framing(rng: np.random.Generator, scene: Scene, portrait: bool, width: int, height: int) -> Window:
    """Fill the image more or less with the dog or its head; what does not fit is cut off."""
    left, bottom, right, top = scene.box(HEAD) if portrait else scene.box()
    fit = min(width / (right - left), height / (top - bottom))
    scale = fit * (rng.uniform(0.6, 0.85) if portrait else rng.uniform(0.84, 1.02))
    slack_x, slack_y = width / scale - (right - left), height / scale - (top - bottom)
    down = rng.uniform(0.2, 0.7) if portrait else rng.uniform(0.4, 0.85)
    return Window(left - slack_x * rng.uniform(0.25, 0.75), top + slack_y * down, scale, width, height)


def _box(scene: Scene, view: Window) -> Box:
    """The piece of the image that the dog can touch, with room for its hair."""
    left, bottom, right, top = scene.box()
    x0, x1 = ((x - view.left) * view.scale for x in (left - 0.08, right + 0.08))
    y0, y1 = ((view.top - y) * view.scale for y in (top + 0.08, bottom - 0.08))
    return max(0, int(x0)), max(0, int(y0)), min(view.width, int(x1) + 1), min(view.height, int(y1) + 1)


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
    """Add what a camera adds: blur, exposure, colour cast, uneven light, noise."""
    if rng.random() < 0.35:
        image = image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.2, 0.8))))
    width, height = image.size
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle, fall, warmth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.15), rng.normal(0.0 if outdoors else 0.04, 0.04)
    shade = 1 - rng.uniform(0, 0.16) * (x * x + y * y) + fall * (np.cos(angle) * x + np.sin(angle) * y)
    contrast, exposure = rng.uniform(0.9, 1.15), rng.uniform(0.88, 1.1)
    gains = exposure * contrast * np.array([1 + warmth, 1 + rng.normal(0, 0.015), 1 - warmth])
    pixels = np.asarray(image) * (shade.astype(np.float32)[:, :, None] * gains.astype(np.float32))
    grain = noise.covering(noise.tile(0.0, 0.0, seed=3), rng, width, height)
    pixels += (np.float32(rng.uniform(1.0, 4.0)) * grain + np.float32(118 * (1 - contrast)))[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
