"""One image of a dog, from nothing but a breed and a random generator."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from . import noise
from .breeds import Breed
from .dog import dog
from .pose import sample_pose
from .render import rendered
from .scene import draw_backdrop
from .solids import HEAD, Scene, Window

RENDERED_PIXELS = 60_000  # of an image before it is averaged down: the larger it is, the fewer for each pixel
ASPECTS = (1.0, 5 / 4, 4 / 3, 4 / 5, 3 / 4)


def draw_image(breed: Breed, rng: np.random.Generator, size: tuple[int, int]) -> bytes:
    """A JPEG of a dog of this breed whose longer side measures size[0] to size[1] pixels."""
    longer, aspect = int(rng.integers(size[0], size[1] + 1)), rng.choice(ASPECTS)
    width, height = (longer, round(longer / aspect)) if aspect >= 1 else (round(longer * aspect), longer)
    pose = sample_pose(rng)
    scene = dog(breed, pose).seen_from(pose.view())
    portrait = rng.random() < 0.1
    window = _framed(rng, scene, portrait, width, height)
    feet = (window.top - scene.box()[1]) * window.scale

    # Painted small and enlarged: out of focus as a backdrop is, and cheap.
    focus, horizon = rng.uniform(0.18, 0.6), np.clip(rng.uniform(0.3, 0.62), 0.12, max(0.2, 0.92 * feet / height))
    image = draw_backdrop(rng, int(focus * width), int(focus * height), int(focus * height * horizon))
    image = ImageEnhance.Color(image).enhance(float(rng.uniform(0.35, 0.7)))
    image = image.filter(ImageFilter.BoxBlur(0.6)).resize((width, height), Image.Resampling.BICUBIC)
    if not portrait:
        _cast_shadow(image, scene, window, feet, float(rng.uniform(60, 140)))

    sampling = float(np.clip(np.sqrt(RENDERED_PIXELS / (width * height)), 1.0, 2.0))
    finer = Window(window.left, window.top, sampling * window.scale, round(sampling * width), round(sampling * height))
    colourway = breed.colourways[rng.integers(len(breed.colourways))]
    cutout = rendered(scene, finer, breed.coat, colourway, rng)
    # RGBa is colour times opacity: averaged down in it, nothing of the transparent surroundings bleeds into the edges.
    cutout = cutout.convert("RGBa").resize((width, height), Image.Resampling.HAMMING).convert("RGBA")
    image.paste(cutout, (0, 0), cutout)
    stream = io.BytesIO()
    _photographed(image, rng).save(stream, "JPEG", quality=int(rng.integers(62, 94)))
    return stream.getvalue()


def _framed(rng: np.random.Generator, scene: Scene, portrait: bool, width: int, height: int) -> Window:
    """Fill the image more or less with the dog or its head; what does not fit is cut off."""
    left, bottom, right, top = scene.box(HEAD) if portrait else scene.box()
    filled = rng.uniform(0.6, 0.85) if portrait else rng.uniform(0.84, 1.02)
    scale = filled * min(width / (right - left), height / (top - bottom))
    aside, down = width / scale - (right - left), height / scale - (top - bottom)
    return Window(left - aside * rng.uniform(0.25, 0.75), top + down * rng.uniform(0.4, 0.8), scale, width, height)


def _cast_shadow(image: Image.Image, scene: Scene, window: Window, feet: float, strength: float) -> None:
    left, bottom, right, top = scene.box()
    flat = 0.06 * (top - bottom) * window.scale
    x0, x1 = (left - window.left) * window.scale, (right - window.left) * window.scale
    shadow = Image.new("L", image.size)
    ImageDraw.Draw(shadow).ellipse((x0, feet - 1.5 * flat, x1, feet + 0.5 * flat), int(strength))
    image.paste((18, 20, 30), mask=shadow.filter(ImageFilter.BoxBlur(3)))


def _photographed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add what a camera adds: blur, exposure, colour cast, uneven light, noise."""
    if rng.random() < 0.35:
        image = image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.2, 0.8))))
    x, y = (np.linspace(-1, 1, length, dtype=np.float32) for length in image.size)
    angle, fall, warmth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.15), rng.normal(0, 0.04)
    shade = (
        1 + fall * (np.cos(angle) * x + np.sin(angle) * y[:, None]) - rng.uniform(0, 0.16) * (x**2 + y[:, None] ** 2)
    )
    contrast, exposure = rng.uniform(0.9, 1.15), rng.uniform(0.88, 1.1)
    gains = exposure * contrast * np.array([1 + warmth, 1 + rng.normal(0, 0.015), 1 - warmth])
    pixels = np.asarray(image) * (shade.astype(np.float32)[:, :, None] * gains.astype(np.float32))
    grain = np.float32(rng.uniform(1.0, 4.0)) * noise.covering(noise.WHITE, rng, *image.size)
    pixels += (grain + np.float32(118 * (1 - contrast)))[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
