"""Turn the bytes of a picture that anyone may have sent into an RGB picture, or refuse them with a reason.

Training, evaluation and serving all decode here, so they see the same pixels. The limits are checked against the
file's header before a single pixel is decoded: a few hundred bytes may claim to be gigapixels.
"""

from __future__ import annotations

import io
import warnings
from typing import ClassVar

import numpy as np
from PIL import ExifTags, Image

# What cameras, phones and the web produce and every Pillow build decodes. Pillow knows fifty more, each of them a
# parser that strangers' bytes would reach; HEIC and AVIF depend on how Pillow was built, so that the same
# picture would be accepted by one container and refused by another.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
FORMAT_NAMES = "JPEG, PNG, GIF, WebP, BMP and TIFF"

# Training sets may hold originals from a camera; the service's own, smaller limit is the request's size.
MAX_BYTES = 32 * 1024 * 1024
# The largest photographs of phones are 50 megapixels (8192 x 6144); decoding one takes 200 MB per copy.
MAX_PIXELS = 8192 * 6144

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
    """A picture is refused; the message tells its sender why and what is allowed.

    Attributes
    ----------
    code, status
        The error code and the HTTP status that the service answers with.
    """

    code: ClassVar[str] = "unsupported_image"
    status: ClassVar[int] = 415


class UnreadableImageError(ImageError):
    """The bytes are no picture of a format that is read here, or a damaged one."""


class ImageTooLargeError(ImageError):
    """The picture has more bytes or pixels than allowed."""

    code: ClassVar[str] = "image_too_large"
    status: ClassVar[int] = 413


def decode(
    data: bytes, *, target_size: int | None = None, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode a picture as a person sees it.

    The orientation that the camera noted (EXIF) is applied, transparent parts show white, an animation shows its
    first frame, and every colour mode becomes RGB; 16-bit, 32-bit and floating-point grey are scaled to 8 bits.
    Colour profiles are ignored.

    Parameters
    ----------
    data
        The file's bytes.
    target_size
        The shorter side, in pixels, that the caller will resize the picture to. Given it, a JPEG is decoded at the
        smallest scale that still leaves `SHRINK_MARGIN` times as much; the result depends on the bytes and on this
        number only. Without it, the picture has its full size.
    max_bytes, max_pixels
        The largest file and the largest width x height that are decoded.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    ImageTooLargeError
        Before decoding, if a limit is exceeded.
    UnreadableImageError
        If the bytes are not a picture in one of `FORMATS`, or one that is damaged or truncated.
    """
    if not data:
        raise UnreadableImageError("The picture is empty: 0 bytes.")
    if len(data) > max_bytes:
        raise ImageTooLargeError(f"The picture has {len(data):,} bytes; at most {max_bytes:,} are allowed.")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise UnreadableImageError(f"This is not a picture that can be read; allowed are {FORMAT_NAMES}.") from None
    except Image.DecompressionBombError:
        raise ImageTooLargeError(f"The picture is far too large; at most {max_pixels:,} pixels are allowed.") from None
    except Exception as error:
        raise _damaged(error) from error

    with image:
        width, height = image.size
        if width * height > max_pixels:
            raise ImageTooLargeError(
                f"The picture has {width} x {height} = {width * height:,} pixels; at most {max_pixels:,} are allowed."
            )
        if not width or not height:
            raise UnreadableImageError(f"The picture is damaged: it says it has {width} x {height} pixels.")
        try:
            if target_size is not None:
                shrunk = SHRINK_MARGIN * target_size
                image.draft(None, (shrunk, shrunk))
            image.load()
            return _upright(_to_rgb(image), _orientation(image))
        except MemoryError:
            raise  # within the limits, so it is this machine that is too small and not the picture that is bad
        except Exception as error:
            raise _damaged(error) from error


def _damaged(error: Exception) -> UnreadableImageError:
    # Pillow's decoders meet damaged files with whatever they stumble over: OSError, SyntaxError, ValueError,
    # struct.error, IndexError, zlib.error… All of it means the same to the sender, hence the broad `except`s above.
    return UnreadableImageError(f"The picture is damaged or incomplete and cannot be decoded ({error}).")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata does not make the picture unreadable; viewers ignore it, too
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    transposition = _TRANSPOSITIONS.get(orientation)
    return image if transposition is None else image.transpose(transposition)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):  # "I", "I;16", "I;16B", …
        image = _deep_grey_to_8_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(image, mask=image.getchannel("A"))
        return canvas
    return image.convert("RGB")


def _deep_grey_to_8_bit(image: Image.Image) -> Image.Image:
    """Scale grey values of more than 8 bits to 0…255, where Pillow's own conversion would clip them."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    # Only 16-bit modes say what white is. In the others the brightest pixel tells which convention the file follows.
    brightest = 65535.0 if image.mode.startswith("I;16") else float(values.max())
    conventions = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    white = next((white for white in conventions if brightest <= white), brightest)
    return Image.fromarray((values * (255.0 / white)).clip(0, 255).round().astype(np.uint8))
