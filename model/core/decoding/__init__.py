"""Decoding of images that anyone may have sent."""

from .decoder import FORMAT_NAMES, FORMATS, MAX_PIXELS, decode
from .errors import ImageError, ImageTooLargeError, UnreadableImageError

__all__ = [
    "FORMATS",
    "FORMAT_NAMES",
    "MAX_PIXELS",
    "ImageError",
    "ImageTooLargeError",
    "UnreadableImageError",
    "decode",
]
