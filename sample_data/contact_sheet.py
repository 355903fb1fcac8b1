"""A sheet with a few pictures of every breed, to look at: `python -m sample_data.contact_sheet SHEET.jpg`."""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from .breeds import BREEDS, Breed
from .picture import draw_picture

TILE = 132  # pixels
CAPTION = 16


def contact_sheet(breeds: Sequence[Breed], *, columns: int, seed: int) -> Image.Image:
    """One row per breed and half of the page: the breed's name, and below it `columns` pictures."""
    page = Image.new("RGB", (2 * columns * TILE + CAPTION, ((len(breeds) + 1) // 2) * (TILE + CAPTION)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for row, breed in enumerate(breeds):
        left = (row % 2) * (columns * TILE + CAPTION)
        top = (row // 2) * (TILE + CAPTION)
        draw.text((left + 2, top + 1), breed.name.replace("_", " "), "black", font)
        for column in range(columns):
            jpeg = draw_picture(breed, np.random.default_rng([seed, row, column]), (190, 230))
            with Image.open(io.BytesIO(jpeg)) as picture:
                tile = ImageOps.pad(picture, (TILE - 2, TILE - 2), Image.Resampling.LANCZOS, "white")
            page.paste(tile, (left + column * TILE, top + CAPTION))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sheet", type=Path, help="the JPEG to write")
    parser.add_argument("--columns", type=int, default=4, help="pictures of each breed (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures (default: %(default)s)")
    arguments = parser.parse_args()
    sheet = contact_sheet(BREEDS, columns=arguments.columns, seed=arguments.seed)
    sheet.save(arguments.sheet, quality=80)


if __name__ == "__main__":
    main()
