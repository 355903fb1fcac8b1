"""Decoding: every honest image looks as a person sees it; every hostile one is refused with a reason.

Images that cost much are in tests/security/hostile_input/test_images.py.
"""

import contextlib
import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageOps
from serving_fixtures import encode, image_bytes

from model.core.decoding import ImageError, ImageTooLargeError, UnreadableImageError, decode

# Pillow comments on damaged TIFF files while it reads them; that they are damaged is the point here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")

FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]
COLOUR, GREY = (200, 100, 50), (200, 200, 200)


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))


def pixel(image: Image.Image, place: tuple[int, int]) -> list[int]:
    return np.asarray(image)[place[1], place[0]].tolist()


def two_halves() -> Image.Image:
    """Red on the left, blue on the right, wider than high: any wrong turn shows."""
    image = Image.new("RGB", (64, 32), "red")
    image.paste("blue", (32, 0, 64, 32))
    return image


@pytest.mark.parametrize(
    ("mode", "file_format", "colour"),
    [
        ("1", "PNG", (255, 255, 255)), ("L", "PNG", GREY), ("P", "GIF", COLOUR), ("RGB", "BMP", COLOUR),
        ("RGB", "WEBP", COLOUR), ("CMYK", "JPEG", COLOUR), ("CMYK", "TIFF", COLOUR), ("YCbCr", "TIFF", COLOUR),
    ],
)  # fmt: skip
def test_every_mode_becomes_rgb(mode: str, file_format: str, colour: tuple[int, int, int]) -> None:
    decoded = decode(encode(Image.new("RGB", (20, 20), colour).convert(mode), file_format))
    assert decoded.mode == "RGB"
    assert np.allclose(pixel(decoded, (10, 10)), colour, atol=4)


@pytest.mark.parametrize(
    ("mode", "file_format"), [("PA", "PNG"), *itertools.product(("RGBA", "LA"), ("PNG", "TIFF", "WEBP"))]
)
def test_transparent_parts_show_white(mode: str, file_format: str) -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 10, 20))
    image.paste((0, 0, 0, 128), (10, 0, 20, 10))
    image = image.quantize() if mode == "PA" else image.convert(mode)
    decoded = decode(encode(image, file_format, **({"lossless": True} if file_format == "WEBP" else {})))
    assert pixel(decoded, (5, 5)) == [0, 0, 0]
    assert pixel(decoded, (15, 15)) == [255, 255, 255]
    assert np.allclose(pixel(decoded, (15, 5)), 127, atol=2)


def test_a_transparent_colour_shows_white() -> None:
    data = encode(Image.new("P", (4, 4), 0), "GIF", transparency=0)
    assert pixel(decode(data), (3, 3)) == [255, 255, 255]


@pytest.mark.parametrize(
    ("file_format", "kind", "white"),
    [("PNG", np.uint16, 65535), ("TIFF", np.uint16, 65535), *(("TIFF", np.float32, w) for w in (1.0, 255.0, 1e9))],
)
def test_deep_grey_is_scaled_and_not_clipped(file_format: str, kind: type, white: float) -> None:
    values = np.linspace(0, white, 256, dtype=kind).reshape(16, 16)
    decoded = np.asarray(decode(encode(Image.fromarray(values), file_format)))
    assert np.abs(decoded[..., 0].astype(int).ravel() - np.arange(256)).max() <= 1
    if kind is np.float32:
        values[0, :2] = np.nan, -np.inf  # what is no number is black
        assert np.asarray(decode(encode(Image.fromarray(values), "TIFF")))[0, :2].max() == 0


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_shows_its_first_frame(file_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
    assert np.allclose(pixel(decode(data), (4, 4)), (255, 0, 0), atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_turned_image_is_shown_upright(orientation: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(two_halves(), file_format, exif=exif)
    with Image.open(io.BytesIO(data)) as stored:
        upright = ImageOps.exif_transpose(stored)
    assert np.abs(np.asarray(decode(data), int) - np.asarray(upright, int)).mean() < 10


def test_broken_metadata_does_not_make_an_image_unreadable() -> None:
    data = encode(two_halves(), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff garbage")
    assert decode(data).size == (64, 32)


@pytest.mark.parametrize(
    ("size", "target", "expected"),
    [
        ((1600, 1200), None, (1600, 1200)), ((1600, 1200), 72, (200, 150)), ((1600, 1200), 601, (1600, 1200)),
        ((4000, 20), 72, (4000, 20)),
    ],
)  # fmt: skip
def test_a_large_jpeg_is_decoded_small_but_not_smaller_than_twice_the_target(size, target, expected):
    assert decode(encode(noise(size), "JPEG"), target_size=target).size == expected


@pytest.mark.parametrize(
    "data",
    [
        b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg' width='10' height='10'/>", b"BM" + b"\xff" * 60,
        b"II*\0\xff\xff\xff\xff", encode(Image.new("RGB", (32, 32)), "PPM"), encode(Image.new("RGB", (32, 32)), "EPS"),
    ],
)  # fmt: skip
def test_what_is_not_an_image_or_of_a_format_off_the_list_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        decode(data)
    assert (caught.value.status, caught.value.code) == (415, "unsupported_image")
    assert data != b"hello" or "JPEG, PNG, GIF, WebP, BMP and TIFF" in str(caught.value)


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("target_size", [None, 32])
def test_truncated_images_are_refused(file_format: str, target_size: int | None) -> None:
    data = encode(noise((300, 200)), file_format)
    for kept in (0.2, 0.5, 0.9):
        with pytest.raises(ImageError):
            decode(data[: int(len(data) * kept)], target_size=target_size)


def test_the_limits_are_exact_and_named() -> None:
    data = image_bytes(size=(100, 50))
    assert decode(data, max_pixels=5000, max_bytes=len(data)).size == (100, 50)
    with pytest.raises(ImageTooLargeError, match="100 x 50 = 5,000 pixels; at most 4,999") as caught:
        decode(data, max_pixels=4999)
    assert (caught.value.status, caught.value.code) == (413, "image_too_large")
    with pytest.raises(ImageTooLargeError, match=f"{len(data)} bytes; at most {len(data) - 1}"):
        decode(data, max_bytes=len(data) - 1)


@pytest.mark.parametrize("file_format", FORMATS)
def test_random_damage_never_raises_anything_but_image_errors(file_format: str) -> None:
    random = np.random.default_rng(1)
    original = encode(noise((60, 40)), file_format)
    for _ in range(300):
        damaged = np.frombuffer(original, np.uint8).copy()
        places = random.integers(0, len(damaged), random.integers(1, 20))
        damaged[places] = random.integers(0, 256, len(places))
        with contextlib.suppress(ImageError):
            assert decode(damaged.tobytes(), target_size=16, max_pixels=10_000).mode == "RGB"
