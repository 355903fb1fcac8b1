from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from model.core.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


def smooth_picture(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=2).astype(np.uint8))


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 80), st.integers(0, 40))
@example(1, 60_000, 64, 8)  # a strip is not blown up on the way
def test_any_shape_becomes_the_networks_input(width, height, input_size, extra):
    values = Preprocessing(input_size, input_size + extra)(Image.new("RGB", (width, height), (255, 0, 128)))
    assert values.shape == (3, input_size, input_size)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    expected = (np.array([1, 0, 128 / 255]) - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(values, np.broadcast_to(expected[:, None, None], values.shape), atol=1e-5)


@pytest.mark.parametrize("size", [(320, 200), (200, 320), (96, 96), (40, 30)])
def test_crop_shows_what_resizing_all_and_cutting_the_centre_shows(size):
    picture = smooth_picture(*size)
    found = Preprocessing(input_size=64, resize_size=72).crop(picture).astype(int)

    factor = 72 / min(size)
    resized = picture.resize((round(size[0] * factor), round(size[1] * factor)), Image.Resampling.BILINEAR)
    left, top = round((resized.width - 64) / 2), round((resized.height - 64) / 2)
    expected = np.asarray(resized.crop((left, top, left + 64, top + 64))).astype(int)
    assert np.abs(found - expected).max() <= 6  # of 255: half a pixel of rounding where the picture is steepest


def test_normalise_is_the_textbook_formula_for_batches_and_single_pictures():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    preprocessing = Preprocessing(8, 8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    expected = ((pixels / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(preprocessing.normalise(pixels), expected, atol=1e-5)
    np.testing.assert_array_equal(preprocessing.normalise(pixels)[2], preprocessing.normalise(pixels[2]))


def test_preprocessing_needs_no_torch():
    program = (
        "import sys, model.core.transforms, model.training.data.decoded, model.core.packaging;"
        "import model.training.loop.evaluation;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
