"""Decoding: every honest image looks as a person sees it; every hostile one is refused with a reason.

Images that cost much, and damaged ones of all kinds, are in tests/security/hostile_input.
"""

import contextlib
import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from serving_fixtures import encode, image_bytes, png_chunk

from model.core.decoding import ImageError, ImageTooLargeError, UnreadableImageError, decode

# Pillow comments on damaged TIFF files while it reads them; that they are damaged is the point here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")

FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"]
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


def test_an_orientation_in_32_bits_turns_too() -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\4\0\0\0\1\0\0\0\6"
    assert decode(encode(two_halves(), "JPEG", exif=exif)).size == (32, 64)


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
    assert data != b"hello" or "JPEG, PNG, GIF, WebP, BMP" in str(caught.value)


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


JPEGS: dict[str, bytes] = {
    "baseline": encode(noise((90, 70)), "JPEG"),
    "progressive": encode(Image.linear_gradient("L").resize((120, 90)), "JPEG", progressive=True),
    "of one colour below": encode(ImageOps.expand(noise((64, 16)), (0, 0, 0, 64), "navy"), "JPEG", optimize=True),
    "with restart intervals": encode(noise((90, 70)), "JPEG", restart_marker_rows=1),
    "of one colour with restart intervals": encode(Image.new("RGB", (90, 70)), "JPEG", restart_marker_blocks=3),
}


@pytest.mark.parametrize("name", JPEGS)
def test_jpeg_without_its_end_marker_is_read_if_all_pixels_are_there(name: str) -> None:
    for rest in (b"", b"\xff", b"\r\n", bytes(9000)):
        assert np.array_equal(decode(JPEGS[name][:-2] + rest), decode(JPEGS[name]))


CUT: dict[str, bytes] = {
    **JPEGS,
    "PNG of one colour": image_bytes(),
    "PNG": encode(noise((40, 30)), compress_level=0),
    "TIFF": encode(Image.new("LA", (40, 30), (9, 99)), "TIFF", compression="tiff_lzw"),
    "WebP": encode(two_halves(), "WEBP", lossless=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0"),
}


@pytest.mark.parametrize("name", CUT)
def test_what_is_left_of_an_image_is_never_read_as_other_pixels(name: str) -> None:
    data = CUT[name]
    header = data.find(b"\xff\xda") + 14
    marks = {at for at in range(header, len(data)) if data[at] == 0xFF and data[at + 1]}  # of scans and intervals
    for cut in {*marks, *range(header, len(data), max(1, len(data) // 20)), *range(len(data) - 150, len(data))}:
        for rest in (b"", bytes(9000)) if name in JPEGS else (b"",):
            with contextlib.suppress(ImageError):  # what is missing may be no pixels
                assert np.array_equal(decode(data[:cut] + rest), decode(data))


def png(depth: int, colour: int, row: bytes, transparent: bytes) -> bytes:
    """A PNG of one row and two pixels, one of which is of the transparent colour."""
    header = struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize(
    "data",
    [
        png(16, 0, b"\0\0\x40\0", b"\0\0"), png(16, 0, b"\x12\x34\x40\0", b"\x12\x34"), png(2, 0, b"\x90", b"\0\2"),
        png(4, 0, b"\x94", b"\0\x09"), png(8, 0, b"\x09\x40", b"\0\x09"),
        png(8, 2, b"\1\2\3\x40\x40\x40", b"\0\1\0\2\0\3"), png(16, 2, b"\1\2\3\4\5\6" + b"\x40" * 6, b"\1\2\3\4\5\6"),
    ],
)  # fmt: skip
def test_transparent_colour_of_any_depth_shows_white(data: bytes) -> None:
    decoded = np.asarray(decode(data))
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert np.allclose(decoded[0, 1], 0x40, atol=0x15)


@pytest.mark.parametrize("brand", [b"heic", b"mif1\0\0\0\0mif1heic"])
def test_heic_is_named_with_the_way_to_convert_it(brand: bytes) -> None:
    with pytest.raises(UnreadableImageError, match=r"HEIC.*Convert the image to JPEG"):
        decode(struct.pack(">I", 16 + len(brand)) + b"ftyp" + brand + bytes(100))


def test_avif_is_upright_whatever_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(two_halves(), "AVIF", exif=exif)
    assert decode(turned).size == decode(turned.replace(b"II*\0", b"oops").replace(b"MM\0*", b"oops")).size == (32, 64)
