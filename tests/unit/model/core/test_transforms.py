import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from model.core.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 80), st.integers(0, 40))
@example(1, 60_000, 64, 8)  # a strip is not blown up on the way
def test_any_shape_becomes_the_networks_input(width, height, input_size, extra):
    values = Preprocessing(input_size, input_size + extra)(Image.new("RGB", (width, height), (255, 0, 128)))
    assert (values.shape, values.dtype) == ((3, input_size, input_size), np.float32)
    assert values.flags.c_contiguous
    expected = (np.array([1, 0, 128 / 255]) - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(values, np.broadcast_to(expected[:, None, None], values.shape), atol=1e-5)


@pytest.mark.parametrize("size", [(320, 200), (200, 320), (96, 96), (40, 30)])
def test_crop_shows_what_resizing_all_and_cutting_the_centre_shows(size):
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    image = Image.fromarray(np.stack([x, y, (x + y) / 2], axis=2).astype(np.uint8))
    found = Preprocessing(input_size=64, resize_size=72).crop(image).astype(int)
    factor = 72 / min(size)
    resized = image.resize((round(size[0] * factor), round(size[1] * factor)), Image.Resampling.BILINEAR)
    left, top = round((resized.width - 64) / 2), round((resized.height - 64) / 2)
    expected = np.asarray(resized.crop((left, top, left + 64, top + 64))).astype(int)
    assert np.abs(found - expected).max() <= 6  # of 255: half a pixel of rounding where the image is steepest
