"""Why an image is refused."""

from __future__ import annotations

from typing import ClassVar


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
