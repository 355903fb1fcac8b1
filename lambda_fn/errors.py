"""Every way a request can fail, and what the caller is told: one tree, one mapping to HTTP.

A message is read by the caller, so it says what was wrong and what is allowed, and never names an address, a role,
an ARN or a path of ours. What the operator needs on top of that goes into ``detail``, which is only logged.
"""

from __future__ import annotations

from typing import ClassVar


class ServiceError(Exception):
    """A failed request: a message for the caller, by default `usual_message`, and a detail for the log.

    `code` is the stable identifier in the answer; `retry_after_seconds` is set where trying again later can help.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    usual_message: ClassVar[str] = ""
    retry_after_seconds: ClassVar[int | None] = None

    def __init__(self, message: str | None = None, *, detail: str | None = None) -> None:
        self.message = message or self.usual_message
        super().__init__(self.message)
        self.detail = detail

    def headers(self) -> dict[str, str]:
        return {} if self.retry_after_seconds is None else {"retry-after": str(self.retry_after_seconds)}


class BadRequestError(ServiceError):
    """The request is malformed."""

    status = 400
    code = "bad_request"


class NotFoundError(ServiceError):
    """No such path."""

    status = 404
    code = "not_found"


class MethodNotAllowedError(ServiceError):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"Only {allowed} is answered at this path.")
        self.allowed = allowed

    def headers(self) -> dict[str, str]:
        return {"allow": self.allowed}


class ImageTooLargeError(ServiceError):
    """Too many bytes (found here) or pixels (found by the model's server)."""

    status = 413
    code = "image_too_large"

    @classmethod
    def over(cls, limit: int, size: int | None = None) -> ImageTooLargeError:
        """Return the error for an image of so many bytes (None: unknown, but over the limit)."""
        what = "The image is too large" if size is None else f"The image has {size} bytes"
        return cls(f"{what}; at most {limit} bytes ({limit / 1e6:.1f} MB) are allowed.")


class UnsupportedMediaTypeError(ServiceError):
    """The body is declared to be something else than an image or JSON."""

    status = 415
    code = "unsupported_media_type"


class UnsupportedImageError(ServiceError):
    """The model's server cannot read the bytes as an image."""

    status = 415
    code = "unsupported_image"


class UrlNotAllowedError(ServiceError):
    """The URL is one that the function will not fetch."""

    status = 422
    code = "url_not_allowed"


class UrlFetchError(ServiceError):
    """The URL is allowed, but no image came from it."""

    status = 422
    code = "url_fetch_failed"


class ModelFailedError(ServiceError):
    """The model's server failed on this request."""

    status = 424
    code = "model_failed"


class ThrottledError(ServiceError):
    """More requests than the endpoint takes."""

    status = 429
    code = "throttled"
    usual_message = "Too many requests at once. Try again in a moment."
    retry_after_seconds = 1


class InternalError(ServiceError):
    """A fault of ours: a bug, or a function that may not call its endpoint."""

    status = 500
    code = "internal_error"
    usual_message = "The service failed. Give the operator this answer's request_id."


class NotReadyError(ServiceError):
    """The endpoint is absent, starting, scaled to zero or unreachable."""

    status = 503
    code = "not_ready"
    usual_message = "The classifier is not ready. Try again in a moment."
    retry_after_seconds = 10


class TimedOutError(ServiceError):
    """The endpoint did not answer in time."""

    status = 504
    code = "timed_out"
    usual_message = "The classifier did not answer in time. Try again, or send a smaller image."


# What the model's server may say about the caller's image; anything else that it reports is its own failure.
MODEL_CALLER_ERRORS: dict[str, type[ServiceError]] = {
    error.code: error for error in (BadRequestError, ImageTooLargeError, UnsupportedImageError)
}
