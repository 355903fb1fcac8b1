"""Decoding: every honest picture looks as a person sees it; every hostile one is refused with a reason, cheaply."""

from __future__ import annotations

import io
import itertools
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from serving_fixtures import encode, picture, png_that_claims

from model.core.decoding import MAX_PIXELS, ImageError, ImageTooLargeError, UnreadableImageError, decode

# Pillow comments on damaged TIFF files while it reads them; that they are damaged is the point here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")

PHOTOS = sorted((Path(__file__).parents[5] / "shared" / "photos").glob("*.jpg"))


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8)).convert(mode)


def pixel(image: Image.Image, place: tuple[int, int]) -> list[int]:
    return np.asarray(image)[place[1], place[0]].tolist()


def two_halves() -> Image.Image:
    """Red on the left, blue on the right, wider than high: any wrong turn shows."""
    image = Image.new("RGB", (64, 32), "red")
    image.paste("blue", (32, 0, 64, 32))
    return image


class TestColourModes:
    @pytest.mark.parametrize(
        ("mode", "file_format", "expected"),
        [
            ("1", "PNG", (255, 255, 255)),
            ("L", "PNG", (200, 200, 200)),
            ("P", "PNG", (200, 100, 50)),
            ("P", "GIF", (200, 100, 50)),
            ("RGB", "BMP", (200, 100, 50)),
            ("RGB", "TIFF", (200, 100, 50)),
            ("RGB", "WEBP", (200, 100, 50)),
            ("RGB", "JPEG", (200, 100, 50)),
            ("CMYK", "JPEG", (200, 100, 50)),
            ("CMYK", "TIFF", (200, 100, 50)),
            ("YCbCr", "TIFF", (200, 100, 50)),
        ],
    )
    def test_every_mode_becomes_rgb(self, mode: str, file_format: str, expected: tuple[int, int, int]) -> None:
        colour = (200, 200, 200) if mode in ("1", "L") else (200, 100, 50)
        image = Image.new("RGB", (20, 20), colour)
        image = image.convert(mode, dither=Image.Dither.NONE) if mode == "1" else image.convert(mode)
        decoded = decode(encode(image, file_format))
        assert decoded.mode == "RGB"
        assert np.allclose(pixel(decoded, (10, 10)), expected, atol=4)

    @pytest.mark.parametrize(
        ("mode", "file_format"),
        [("PA", "PNG"), *itertools.product(("RGBA", "LA"), ("PNG", "TIFF", "WEBP"))],
    )
    def test_transparent_parts_show_white(self, mode: str, file_format: str) -> None:
        image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
        image.paste((0, 0, 0, 255), (0, 0, 10, 20))
        image.paste((0, 0, 0, 128), (10, 0, 20, 10))
        image = image.quantize() if mode == "PA" else image.convert(mode)
        decoded = decode(encode(image, file_format, **({"lossless": True} if file_format == "WEBP" else {})))
        assert pixel(decoded, (5, 5)) == [0, 0, 0]
        assert pixel(decoded, (15, 15)) == [255, 255, 255]
        assert np.allclose(pixel(decoded, (15, 5)), 127, atol=2)

    @pytest.mark.parametrize(("file_format", "colour"), [("GIF", 0), ("PNG", (1, 2, 3))])
    def test_a_transparent_colour_shows_white(self, file_format: str, colour: int | tuple[int, ...]) -> None:
        image = Image.new("P" if file_format == "GIF" else "RGB", (4, 4), colour)
        assert pixel(decode(encode(image, file_format, transparency=colour)), (3, 3)) == [255, 255, 255]

    @pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
    def test_16_bit_grey_is_scaled_and_not_clipped(self, file_format: str) -> None:
        values = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
        decoded = np.asarray(decode(encode(Image.fromarray(values), file_format)))
        assert np.abs(decoded[..., 0].astype(int).ravel() - np.arange(256)).max() <= 1

    @pytest.mark.parametrize("white", [1.0, 255.0, 65535.0, 1e9])
    def test_floating_point_grey_is_scaled_by_its_convention(self, white: float) -> None:
        values = np.linspace(0, white, 256, dtype=np.float32).reshape(16, 16)
        decoded = np.asarray(decode(encode(Image.fromarray(values), "TIFF")))
        assert np.abs(decoded[..., 0].astype(int).ravel() - np.arange(256)).max() <= 1
        values = np.array([[np.nan, np.inf], [-np.inf, white]], np.float32)  # what is no number is black
        assert np.asarray(decode(encode(Image.fromarray(values), "TIFF")))[..., 0].tolist() == [[0, 0], [0, 255]]

    def test_an_animation_shows_its_first_frame(self) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        for file_format in ("GIF", "WEBP", "PNG", "TIFF"):
            data = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
            assert np.allclose(pixel(decode(data), (4, 4)), (255, 0, 0), atol=4), file_format


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
    def test_a_turned_picture_is_shown_upright(self, orientation: int, file_format: str) -> None:
        transposition = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90,  # the camera was turned clockwise, so what it stored is turned back
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270,
        }.get(orientation)
        upright = two_halves()
        stored = upright if transposition is None else upright.transpose(transposition)
        exif = Image.Exif()
        exif[0x0112] = orientation
        decoded = decode(encode(stored, file_format, exif=exif))
        assert decoded.size == (64, 32)
        assert np.abs(np.asarray(decoded, int) - np.asarray(upright, int)).mean() < 10

    def test_shrinking_and_turning_go_together(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        stored = two_halves().resize((1024, 512)).transpose(Image.Transpose.ROTATE_90)
        decoded = decode(encode(stored, "JPEG", exif=exif), target_size=32)
        assert decoded.size == (128, 64)
        assert np.allclose(pixel(decoded, (4, 30)), (255, 0, 0), atol=8)

    def test_broken_metadata_does_not_make_a_picture_unreadable(self) -> None:
        data = encode(two_halves(), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff garbage")
        assert decode(data).size == (64, 32)


class TestShrinking:
    def test_a_large_jpeg_is_decoded_small_but_not_smaller_than_twice_the_target(self) -> None:
        data = encode(noise((1600, 1200)), "JPEG")
        assert decode(data).size == (1600, 1200)
        assert decode(data, target_size=72).size == (200, 150)
        assert min(decode(data, target_size=300).size) == 600
        assert decode(data, target_size=601).size == (1600, 1200)

    def test_a_small_or_long_picture_is_left_as_it_is(self) -> None:
        assert decode(encode(noise((100, 80)), "JPEG"), target_size=72).size == (100, 80)
        assert decode(encode(noise((4000, 20)), "JPEG"), target_size=72).size == (4000, 20)

    @pytest.mark.skipif(not PHOTOS, reason="the photographs are not on this machine")
    def test_shrunk_photographs_look_like_the_full_ones(self) -> None:
        for photo in PHOTOS:
            data = photo.read_bytes()
            full, shrunk = (
                np.asarray(decode(data, target_size=target).resize((64, 64), Image.Resampling.BILINEAR), int)
                for target in (None, 64)
            )
            assert np.abs(full - shrunk).mean() < 3, photo.name


class TestRefusals:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"hello",
            b"\x00" * 1000,
            b"\xff\xd8\xff",
            b"<svg xmlns='http://www.w3.org/2000/svg' width='10' height='10'/>",
            b"<!doctype html><html><body>404</body></html>",
            b"%PDF-1.7 something",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
            b"GIF89a",
            b"RIFF\x00\x00\x00\x00WEBP",
            b"BM" + b"\xff" * 60,
            b"II*\x00\xff\xff\xff\xff",
            b"\x89PNG\r\n\x1a\n",
            b"PK\x03\x04" + b"\x00" * 100,
        ],
    )
    def test_what_is_not_a_picture_is_refused(self, data: bytes) -> None:
        with pytest.raises(UnreadableImageError) as caught:
            decode(data)
        assert caught.value.status == 415
        assert caught.value.code == "unsupported_image"
        assert "BytesIO" not in str(caught.value)
        assert data != b"hello" or "JPEG, PNG, GIF, WebP, BMP and TIFF" in str(caught.value)

    @pytest.mark.parametrize("file_format", ["PPM", "ICO", "TGA", "JPEG2000", "PCX", "EPS", "ICNS"])
    def test_formats_off_the_list_are_refused_although_pillow_reads_them(self, file_format: str) -> None:
        data = encode(Image.new("RGB", (32, 32)), file_format)
        with Image.open(io.BytesIO(data)) as image:
            assert image.size
        with pytest.raises(UnreadableImageError):
            decode(data)

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
    @pytest.mark.parametrize("target_size", [None, 32])
    def test_truncated_pictures_are_refused(self, file_format: str, target_size: int | None) -> None:
        data = encode(noise((300, 200)), file_format)
        for kept in (0.2, 0.5, 0.9):
            with pytest.raises(ImageError):
                decode(data[: int(len(data) * kept)], target_size=target_size)
        if file_format == "JPEG":
            progressive = encode(noise((300, 200)), "JPEG", progressive=True)
            with pytest.raises(UnreadableImageError, match="damaged or incomplete"):
                decode(progressive[: len(progressive) // 2], target_size=target_size)

    def test_more_bytes_than_allowed_are_refused(self) -> None:
        with pytest.raises(ImageTooLargeError, match=r"1,001 bytes; at most 1,000") as caught:
            decode(b"x" * 1001, max_bytes=1000)
        assert caught.value.status == 413
        assert caught.value.code == "image_too_large"

    def test_the_pixel_limit_is_exact(self) -> None:
        assert decode(picture(size=(100, 50)), max_pixels=5000).size == (100, 50)
        with pytest.raises(ImageTooLargeError, match="100 x 50 = 5,000 pixels; at most 4,999"):
            decode(picture(size=(100, 50)), max_pixels=4999)

    @pytest.mark.parametrize(
        "data",
        [
            png_that_claims(MAX_PIXELS, 2),
            png_that_claims(2**31 - 1, 2**31 - 1),
            png_that_claims(10_000, 10_000),
            encode(Image.new("1", (10_000, 10_000)), "TIFF", compression="group4"),
            encode(Image.new("L", (8_000, 8_000)), "JPEG", quality=1),
            encode(Image.new("P", (8_000, 8_000)), "GIF"),
        ],
        ids=["png", "png-gigantic", "png-100-megapixels", "tiff-group4", "jpeg", "gif"],
    )
    def test_a_bomb_is_refused_before_it_is_decoded(self, data: bytes) -> None:
        tracemalloc.start()
        try:
            with pytest.raises(ImageError) as caught:
                decode(data, target_size=64)
            assert tracemalloc.get_traced_memory()[1] < 5_000_000 + len(data)
        finally:
            tracemalloc.stop()
        assert caught.value.status in (413, 415)
        assert isinstance(caught.value, ImageTooLargeError) or "2147483647" in str(caught.value)

    @pytest.mark.parametrize("kind", [1, 3, 4], ids=["bytes", "short", "long"])
    def test_a_tiff_of_too_many_tiles_is_refused_before_pillow_lists_them(
        self, kind: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        offsets = b"\1\0\0\0" * 70_000
        data = b"II*\0" + struct.pack("<IHHHII", 8, 1, 324, kind, 70_000, 26) + bytes(4) + offsets
        monkeypatch.setattr(Image, "open", None)
        with pytest.raises(ImageTooLargeError, match="70,000 tiles or strips; at most 65,535"):
            decode(data)

    def test_a_bomb_in_the_metadata_is_not_unpacked(self) -> None:
        info = PngImagePlugin.PngInfo()
        info.add_text("comment", "x" * 50_000_000, zip=True)
        data = encode(Image.new("RGB", (8, 8)), "PNG", pnginfo=info)
        tracemalloc.start()
        try:
            with pytest.raises(UnreadableImageError, match="too large"):
                decode(data)
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (65_500, 3)])
    def test_odd_shapes_are_pictures_too(self, size: tuple[int, int]) -> None:
        assert decode(picture(size=size), target_size=64).size == size
        assert decode(picture(size=size, file_format="JPEG"), target_size=64).size == size

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
    def test_random_damage_never_raises_anything_but_image_errors(self, file_format: str) -> None:
        random = np.random.default_rng(1)
        original = encode(noise((60, 40)), file_format)
        outcomes = set()
        for _ in range(300):
            damaged = np.frombuffer(original, np.uint8).copy()
            places = random.integers(0, len(damaged), random.integers(1, 20))
            damaged[places] = random.integers(0, 256, len(places))
            try:
                outcomes.add(decode(damaged.tobytes(), target_size=16, max_pixels=10_000).mode)
            except ImageError as error:
                outcomes.add(type(error).__name__)
        assert outcomes <= {"RGB", "UnreadableImageError", "ImageTooLargeError"}
