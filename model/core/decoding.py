"""Turn the bytes of an image that anyone may have sent into an RGB image, or refuse them with a reason.

Training, evaluation and serving all decode here, so they see the same pixels. The limits are checked against the
file's header before a single pixel is decoded: a few hundred bytes may claim to be gigapixels.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, TiffImagePlugin

# What cameras, phones and the web produce and every Pillow build decodes. Pillow knows fifty more, each of them a
# parser that strangers' bytes would reach; HEIC and AVIF depend on how Pillow was built, so that the same
# image would be accepted by one container and refused by another.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
FORMAT_NAMES = "JPEG, PNG, GIF, WebP, BMP and TIFF"

# Training sets may hold originals from a camera; the service's own, smaller limit is the request's size.
MAX_BYTES = 32 * 1024 * 1024
# The largest photographs of phones are 50 megapixels (8192 x 6144).
MAX_PIXELS = 8192 * 6144

# Bytes of memory per pixel that decoding takes at the worst: of a progressive JPEG in CMYK its coefficients, of TIFF a
# strip that is the whole image, of WebP two canvases and a copy. `max_pixels` is the limit of JPEG; formats that take
# more have a lower one, so that no image takes more memory than the largest JPEG.
BYTES_PER_PIXEL = {"JPEG": 8, "PNG": 8, "GIF": 8, "BMP": 8, "TIFF": 12, "WEBP": 20}
# Pillow expands the run-length encoding of BMP in Python: 110 ns a pixel. So it has this part of the pixels.
RLE_PART = 4
# That of JPEG, for the other formats, too: a row or column takes memory of its own, however short it is.
MAX_SIDE = 65_535
# Each component of each scan costs time for every block of 8 x 8 pixels, however few bytes it has: up to 50 ns, and
# five times as much with arithmetic coding. Encoders write up to 24 components in all scans together (CMYK,
# progressive): an image of the largest size may have this many, and a smaller one more.
MAX_SCANS = 24
_SCAN = re.compile(rb"\xff\xda\0[\x08\x0a\x0c\x0e]([\1-\4])")  # the last byte is the number of components
_ARITHMETIC = 5
# Pillow lists each tile or strip of a TIFF when it opens it, 2 us each, and decodes each of an uncompressed one by
# itself: up to 15 us, however few pixels it has.
MAX_TILES = 65_535
_TIFF_PREFIXES = tuple(TiffImagePlugin.PREFIXES)
# What Pillow decompresses or copies whenever it meets it, all of it while it opens the file. Files have it once.
_ONCE = (b"Exif\0\0", b"iCCP")
_MOST_OF_ONCE = 100
_TILE_WIDTH, _TILE_HEIGHT = 322, 323  # tags of TIFF
# Pixels that are converted at a time where that needs copies.
_BAND = 1024 * 1024

# JPEG can be decoded at 1/2, 1/4 or 1/8 of its size for a fraction of the cost. The decoder's shrinking is
# coarser than our resampling, so it stops at this multiple of what is asked for and leaves the last step to us.
SHRINK_MARGIN = 2

# Pillow warns on its own limit, which ours undercuts with an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(Exception):
    """An image is refused; the message tells its sender why and what is allowed."""

    code: ClassVar[str] = "unsupported_image"
    status: ClassVar[int] = 415


class UnreadableImageError(ImageError):
    """The bytes are no image of a format that is read here, or a damaged one."""


class ImageTooLargeError(ImageError):
    """The image has more bytes or pixels than allowed."""

    code: ClassVar[str] = "image_too_large"
    status: ClassVar[int] = 413


def decode(
    data: bytes, *, target_size: int | None = None, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode an image as a person sees it.

    The EXIF orientation is applied, transparent parts show white, an animation shows its first frame, and every colour
    mode becomes RGB; deep grey is scaled to 8 bits. Colour profiles are ignored.

    Parameters
    ----------
    data
        The file's bytes.
    target_size
        The shorter side, in pixels, that the caller will resize the image to. Given it, a JPEG is decoded at the
        smallest scale that still leaves `SHRINK_MARGIN` times as much.
    max_bytes, max_pixels
        The largest file, and the largest width x height of a JPEG; see `BYTES_PER_PIXEL` for the other formats.

    Raises
    ------
    ImageTooLargeError
        Before decoding, if a limit is exceeded.
    UnreadableImageError
        If the bytes are not an image in one of `FORMATS`, or one that is damaged or truncated.
    """
    if not data:
        raise UnreadableImageError("The image is empty: 0 bytes.")
    if len(data) > max_bytes:
        raise ImageTooLargeError(f"The image has {len(data):,} bytes; at most {max_bytes:,} are allowed.")
    if any(data.count(mark) > _MOST_OF_ONCE for mark in _ONCE):
        raise ImageTooLargeError(f"The image has more than {_MOST_OF_ONCE} colour profiles or blocks of EXIF.")
    try:
        if data.startswith(_TIFF_PREFIXES):
            _check_tiles(data)
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise UnreadableImageError(f"This is not an image that can be read; allowed are {FORMAT_NAMES}.") from None
    except Image.DecompressionBombError:
        raise ImageTooLargeError(f"The image is far too large; at most {max_pixels:,} pixels are allowed.") from None
    except ImageError:
        raise
    except Exception as error:
        raise _damaged(error) from error

    with image:
        try:
            _check_cost(image, data, max_pixels)
            if target_size is not None:
                shrunk = SHRINK_MARGIN * target_size
                image.draft(None, (shrunk, shrunk))
            image.load()
            orientation = _orientation(image)
            rgb = _to_rgb(image)
            if rgb is not image:
                image.close()  # frees its pixels before they are there for a third time
            return rgb.transpose(_TRANSPOSITIONS[orientation]) if orientation in _TRANSPOSITIONS else rgb
        except (ImageError, MemoryError):
            raise  # a lack of memory, within the limits, is this machine's fault and not the image's
        except Exception as error:
            raise _damaged(error) from error


def _check_cost(image: ImageFile.ImageFile, data: bytes, max_pixels: int) -> None:
    """Refuse an image that would take too much memory or time, before it is decoded."""
    width, height = image.size
    if not width or not height:
        raise UnreadableImageError(f"The image is damaged: it says it has {width} x {height} pixels.")
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # its tiles may be larger than itself
        width, height = (
            max(side, image.tag_v2.get(tag, 0)) for side, tag in ((width, _TILE_WIDTH), (height, _TILE_HEIGHT))
        )
    allowed = max_pixels * BYTES_PER_PIXEL["JPEG"] // BYTES_PER_PIXEL[_format(image)]
    if image.tile and image.tile[0].codec_name == "bmp_rle":
        allowed //= RLE_PART
    if width * height > allowed or max(width, height) > MAX_SIDE:
        raise ImageTooLargeError(
            f"The image has {width} x {height} = {width * height:,} pixels; at most {allowed:,} are allowed "
            f"for {_format(image)}, and {MAX_SIDE:,} in a row or column."
        )
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        _check_scans(image, data, max_pixels // 64)


def _check_tiles(data: bytes) -> None:
    file = io.BytesIO(data)
    directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if data[2] == ord("+") else 8))  # BigTIFF or not
    file.seek(directory.next)
    directory.load(file)
    offsets = (directory.get(tag) for tag in (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS))
    tiles = max(len(each) if isinstance(each, tuple | bytes | str) else 1 for each in offsets)
    if tiles > MAX_TILES:
        raise ImageTooLargeError(f"The image has {tiles:,} tiles or strips; at most {MAX_TILES:,} are allowed.")


def _check_scans(image: JpegImagePlugin.JpegImageFile, data: bytes, max_blocks: int) -> None:
    # Sides are rounded up to whole minimum coded units: 8 pixels times the largest sampling factor.
    across, down = (max(layer[factor] for layer in image.layer) for factor in (1, 2))
    blocks = -(-image.width // (8 * across)) * across * -(-image.height // (8 * down)) * down
    # A header cannot be part of a scan, so there are at most as many scans as headers (thumbnails have some, too).
    scans = sum(b"".join(_SCAN.findall(data)))
    if re.search(rb"\xff[\xc9\xca]\0.\x08" + re.escape(struct.pack(">HH", image.height, image.width)), data, re.DOTALL):
        scans *= _ARITHMETIC
    if scans * blocks > MAX_SCANS * max_blocks:
        raise ImageTooLargeError(
            f"The image has {scans:,} components in its scans, of {blocks:,} blocks of 8 x 8 pixels each; at most "
            f"{MAX_SCANS * max_blocks:,} blocks are allowed in all scans together."
        )


def _format(image: Image.Image) -> str:
    return "JPEG" if image.format == "MPO" else str(image.format)  # several JPEGs, of which the first is decoded


def _damaged(error: Exception) -> UnreadableImageError:
    # Pillow's decoders meet damaged files with whatever they stumble over: OSError, SyntaxError, ValueError,
    # struct.error, IndexError, zlib.error… All of it means the same to the sender, hence the broad `except`s above.
    return UnreadableImageError(f"The image is damaged or incomplete and cannot be decoded ({error}).")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata does not make the image unreadable; viewers ignore it, too
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):  # "I", "I;16", "I;16B", …
        return _deep_grey_to_8_bit(image).convert("RGB")
    if image.has_transparency_data:
        canvas = Image.new("RGB", image.size, "white")
        for box in _bands(image):
            band = image.crop(box).convert("RGBA")
            canvas.paste(band, box, band.getchannel("A"))
        return canvas
    return image if image.mode == "RGB" else image.convert("RGB")


def _bands(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Give boxes of full width that cover an image, so that only one of them is copied at a time."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def _deep_grey_to_8_bit(image: Image.Image) -> Image.Image:
    """Scale grey values of more than 8 bits to 0…255, where Pillow's own conversion would clip them."""

    def values(box: tuple[int, int, int, int]) -> npt.NDArray[np.float32]:
        return np.nan_to_num(np.asarray(image.crop(box), dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)

    # Only 16-bit modes say what white is. In the others the brightest pixel tells which convention the file follows.
    deep = image.mode.startswith("I;16")
    brightest = 65535.0 if deep else max(float(values(box).max()) for box in _bands(image))
    conventions = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    white = next((white for white in conventions if brightest <= white), brightest)
    grey = Image.new("L", image.size)
    for box in _bands(image):
        grey.paste(Image.fromarray((values(box) * (255.0 / white)).clip(0, 255).round().astype(np.uint8)), box)
    return grey
