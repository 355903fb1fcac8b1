"""Turn the bytes of an image that anyone may have sent into an RGB image, or refuse them with a reason.

Training, evaluation and serving all decode here, so they see the same pixels. The limits are checked against the
file's header before a single pixel is decoded: a few hundred bytes may claim to be gigapixels.

Metadata never decides over pixels: text, colour profiles and the like are often large or broken, and written by other
programs than the pixels. So Pillow sees a file without them (`containers`); of EXIF only the orientation is read.
"""

from __future__ import annotations

import io
import random
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import AvifImagePlugin, Image, ImageFile, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from .containers import has_jpeg_end, orientation_of, without_metadata
from .errors import ImageError, ImageTooLargeError, UnreadableImageError

# What cameras, phones and the web produce. Pillow knows fifty more, each of them a parser that strangers' bytes would
# reach. Its wheels read AVIF; builds of one's own may not.
_AVIF = AvifImagePlugin.SUPPORTED
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", *(["AVIF"] if _AVIF else []))
FORMAT_NAMES = f"JPEG, PNG, GIF, WebP, BMP{', TIFF and AVIF' if _AVIF else ' and TIFF'}"

# Training sets may hold originals from a camera; the service's own, smaller limit is the request's size.
MAX_BYTES = 32 * 1024 * 1024
# The largest photographs of phones are 50 megapixels (8192 x 6144).
MAX_PIXELS = 8192 * 6144

# Bytes of memory per pixel that decoding takes at the worst: of a progressive JPEG in CMYK its coefficients, of TIFF a
# strip that is the whole image, of WebP two canvases and a copy, of AVIF planes and two copies. `max_pixels` is that
# of JPEG; formats that take more have a lower one, so that no image takes more memory than the largest JPEG.
BYTES_PER_PIXEL = {"JPEG": 8, "PNG": 8, "GIF": 8, "BMP": 8, "TIFF": 12, "WEBP": 20, "AVIF": 20}
# Pillow expands the run-length encoding of BMP in Python: 110 ns a pixel. So it has this part of the pixels.
RLE_PART = 4
# That of JPEG, for the other formats, too: a row or column takes memory of its own, however short it is.
MAX_SIDE = 65_535
# Each component of each scan costs time for every block of 8 x 8 pixels, however few bytes it has: up to 50 ns, and
# five times as much with arithmetic coding. Encoders write up to 24 components in all scans together (CMYK,
# progressive): an image of the largest size may have this many, and a smaller one more.
MAX_SCANS = 24
_ALL_64 = 2**64 - 1
_SCAN = re.compile(rb"\xff\xda\0[\x08\x0a\x0c\x0e]([\1-\4])")  # the last byte is the number of components
_ARITHMETIC = 5
# What may follow where a JPEG without its end marker ends: noise, among which every restart interval finds its marker.
_RANDOM = random.Random(0)  # noqa: S311
_ANY_REST = [
    b"".join(bytes(_RANDOM.choices(range(255), k=48)) + b"\xff%c" % (0xD0 + n % 8) for n in range(first, first + 16))
    + b"\xff\xd9"
    for first in (0, 4, 2, 6)
]
# Pillow scales samples to 8 bits, but not the colour that a PNG calls transparent.
_TRANSPARENT_COLOUR: dict[str, Callable[[Any], Any]] = {
    "L;2": lambda grey: grey * 85,
    "L;4": lambda grey: grey * 17,
    "RGB;16B": lambda rgb: tuple(value >> 8 for value in rgb),
}
_HEIF = re.compile(rb".{4}ftyp(?:.{4}){,14}?(?:avi[fs]|he[iv][cmsx]|mif1|msf1).{,60}", re.DOTALL)
_TILE_WIDTH, _TILE_HEIGHT = 322, 323  # tags of TIFF
# Pixels that are converted at a time where that needs copies.
_BAND = 1024 * 1024

# JPEG can be decoded at 1/2, 1/4 or 1/8 of its size for a fraction of the cost. The decoder's shrinking is
# coarser than our resampling, so it stops at this multiple of what is asked for and leaves the last step to us.
SHRINK_MARGIN = 2

# Pillow warns on its own limit, which ours undercuts with an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # callers decode many images at a time

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
    container = None
    try:
        container, data, exif = without_metadata(data)
        image = _load(data, target_size, max_pixels)
        orientation = orientation_of(exif or image.info.get("exif", b""))  # Pillow's own: how AVIF says to turn
        rgb = _to_rgb(image)
        if rgb is not image:
            image.close()  # frees its pixels before they are there for a third time
        return rgb.transpose(_TRANSPOSITIONS[orientation]) if orientation in _TRANSPOSITIONS else rgb
    except UnidentifiedImageError:
        raise _damaged(f"the header of a {container}") if container else _not_read(data) from None
    except Image.DecompressionBombError:
        raise ImageTooLargeError(f"The image is far too large; at most {max_pixels:,} pixels are allowed.") from None
    except (ImageError, MemoryError):
        raise  # a lack of memory, within the limits, is this machine's fault and not the image's
    except Exception as error:
        raise _damaged(error) from error


def _load(data: bytes, target_size: int | None, max_pixels: int) -> ImageFile.ImageFile:
    """Open an image, check what it would cost, and decode it."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    _check_cost(image, data, max_pixels)
    if target_size is not None:
        shrunk = SHRINK_MARGIN * target_size
        image.draft(None, (shrunk, shrunk))
    if image.format == "PNG" and "transparency" in image.info and image.tile:
        scaled = _TRANSPARENT_COLOUR.get(str(image.tile[0].args), lambda colour: colour)
        image.info["transparency"] = scaled(image.info["transparency"])
    try:
        image.load()
        return image
    except OSError:
        if has_jpeg_end(data) or not _has_all_scans(image, data):
            raise
        # Only the end marker is missing if the pixels do not depend on what comes after the data that is there.
        checksums = set()
        for rest in _ANY_REST:
            image.close()
            image = _load(data + rest, target_size, max_pixels)
            checksums.add(tuple(zlib.crc32(image.crop(box).tobytes()) for box in _bands(image)))
        if len(checksums) > 1:
            raise
        return image


def _check_cost(image: ImageFile.ImageFile, data: bytes, max_pixels: int) -> None:
    """Refuse an image that would take too much memory or time, before it is decoded."""
    width, height = image.size
    if not width or not height:
        raise UnreadableImageError(f"The image is damaged: it says it has {width} x {height} pixels.")
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # its tiles may be larger than itself
        width, height = (
            max(side, image.tag_v2.get(tag, 0)) for side, tag in ((width, _TILE_WIDTH), (height, _TILE_HEIGHT))
        )
    allowed = max_pixels * BYTES_PER_PIXEL["JPEG"] // BYTES_PER_PIXEL[str(image.format)]
    if image.tile and image.tile[0].codec_name == "bmp_rle":
        allowed //= RLE_PART
    if width * height > allowed or max(width, height) > MAX_SIDE:
        raise ImageTooLargeError(
            f"The image has {width} x {height} = {width * height:,} pixels; at most {allowed:,} are allowed "
            f"for {image.format}, and {MAX_SIDE:,} in a row or column."
        )
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        _check_scans(image, data, max_pixels // 64)


def _check_scans(image: JpegImagePlugin.JpegImageFile, data: bytes, max_blocks: int) -> None:
    # Sides are rounded up to whole minimum coded units: 8 pixels times the largest sampling factor.
    across, down = (max(layer[factor] for layer in image.layer) for factor in (1, 2))
    blocks = -(-image.width // (8 * across)) * across * -(-image.height // (8 * down)) * down
    # A header cannot be part of a scan, so there are at most as many scans as headers.
    scans = sum(b"".join(_SCAN.findall(data)))
    if not has_jpeg_end(data):
        scans *= 1 + len(_ANY_REST)
    if re.search(rb"\xff[\xc9\xca]\0.\x08" + re.escape(struct.pack(">HH", image.height, image.width)), data, re.DOTALL):
        scans *= _ARITHMETIC
    if scans * blocks > MAX_SCANS * max_blocks:
        raise ImageTooLargeError(
            f"The image has {scans:,} components in its scans, of {blocks:,} blocks of 8 x 8 pixels each; at most "
            f"{MAX_SCANS * max_blocks:,} blocks are allowed in all scans together."
        )


def _has_all_scans(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Tell whether this is a JPEG with scans of the last bits of all 64 coefficients of each component."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return False
    found: dict[int, int] = {}
    for scan in _SCAN.finditer(data):
        end = scan.end() + 2 * scan[1][0]
        first, last, bits = data[end : end + 3].ljust(3)
        for component in data[scan.end() : end : 2] if not bits & 15 else b"":
            found[component] = found.get(component, 0) | (2 << last) - (1 << first)
    return [coefficients & _ALL_64 for coefficients in found.values()] == [_ALL_64] * image.layers


def _not_read(data: bytes) -> UnreadableImageError:
    if found := _HEIF.match(data):
        name = "AVIF" if b"avif" in found[0] else "HEIC"
        return UnreadableImageError(
            f"{name} is not read here; allowed are {FORMAT_NAMES}. Convert the image to JPEG, for example with "
            "`magick image.heic image.jpg`, or export it from the phone as JPEG."
        )
    return UnreadableImageError(f"This is not an image that can be read; allowed are {FORMAT_NAMES}.")


def _damaged(error: Exception | str) -> UnreadableImageError:
    # Pillow's decoders meet damaged files with whatever they stumble over: OSError, SyntaxError, ValueError,
    # struct.error, IndexError, zlib.error… All of it means the same to the sender, hence the broad `except`s above.
    return UnreadableImageError(f"The image is damaged or incomplete and cannot be decoded ({error}).")


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
    transparent = image.info.get("transparency")  # of a PNG
    conventions = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    white = next((white for white in conventions if brightest <= white), brightest)
    grey = Image.new("L", image.size)
    for box in _bands(image):
        deep_grey = values(box)
        scaled = (deep_grey * (255.0 / white)).clip(0, 255).round().astype(np.uint8)
        if transparent is not None:
            scaled[deep_grey == transparent] = 255
        grey.paste(Image.fromarray(scaled), box)
    return grey
