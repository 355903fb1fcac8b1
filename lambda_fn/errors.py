"""Every way a request can fail, and what the caller is told: one tree, one mapping to HTTP.

A message is read by the caller, so it says what was wrong and what is allowed, and never names an address, a role,
an ARN or a path of ours. What the operator needs on top of that goes into ``detail``, which is only logged.
"""

from __future__ import annotations

from typing import ClassVar


class UnsupportedEventError(Exception):
    """The event is none of this function, and its sender must see a failure, or it drops the event as done."""


class ServiceError(Exception):
    """A failed request: a message for the caller, by default `usual_message`, and a detail for the log.

    `code` is the stable identifier in the answer; `headers` are further headers of the answer.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    usual_message: ClassVar[str] = ""
    headers: dict[str, str]

    def __init_subclass__(cls, *, status: int, code: str, retry_after: int | None = None) -> None:
        cls.status = status
        cls.code = code
        cls.headers = {} if retry_after is None else {"retry-after": str(retry_after)}

    def __init__(self, message: str | None = None, *, detail: str | None = None) -> None:
        self.message = message or self.usual_message
        super().__init__(self.message)
        self.detail = detail


class BadRequestError(ServiceError, status=400, code="bad_request"):
    """The request is malformed."""


class NotFoundError(ServiceError, status=404, code="not_found"):
    """No such path."""


class MethodNotAllowedError(ServiceError, status=405, code="method_not_allowed"):
    """The path exists, the method does not."""

    def __init__(self, allowed: str) -> None:
        super().__init__(f"The methods of this path are: {allowed}.")
        self.headers = {"allow": allowed}


class ImageTooLargeError(ServiceError, status=413, code="image_too_large"):
    """Too many bytes (found here) or pixels (found by the model's server)."""

    @classmethod
    def over(cls, limit: int, size: int | None = None) -> ImageTooLargeError:
        """Return the error for an image of so many bytes (None: unknown, but over the limit)."""
        what = "The image is too large" if size is None else f"The image has {size} bytes"
        return cls(f"{what}; at most {limit} bytes ({limit / 1e6:.1f} MB) are allowed.")


class UnsupportedMediaTypeError(ServiceError, status=415, code="unsupported_media_type"):
    """The body is declared to be something else than an image or JSON."""


class UnsupportedImageError(ServiceError, status=415, code="unsupported_image"):
    """The model's server cannot read the bytes as an image."""


class UrlNotAllowedError(ServiceError, status=422, code="url_not_allowed"):
    """The URL is one that the function will not fetch."""


class UrlFetchError(ServiceError, status=422, code="url_fetch_failed"):
    """The URL is allowed, but no image came from it."""


class ModelFailedError(ServiceError, status=424, code="model_failed"):
    """The model's server failed on this request."""


class ThrottledError(ServiceError, status=429, code="throttled", retry_after=1):
    """More requests than the endpoint takes."""

    usual_message = "Too many requests at once. Try again in a moment."


class InternalError(ServiceError, status=500, code="internal_error"):
    """A fault of ours: a bug, or a function that may not call its endpoint."""

    usual_message = "The service failed. Give the operator this answer's request_id."


class NotReadyError(ServiceError, status=503, code="not_ready", retry_after=10):
    """The endpoint is absent, starting, scaled to zero or unreachable, or its instance ended while it answered."""

    usual_message = "The classifier is not ready. Try again in a moment."


class TimedOutError(ServiceError, status=504, code="timed_out"):
    """The endpoint did not answer in time."""

    usual_message = "The classifier did not answer in time. Try again, or send a smaller image."


# What the model's server may say about the caller's image; anything else that it reports is its own failure.
MODEL_CALLER_ERRORS: dict[str, type[ServiceError]] = {
    error.code: error for error in (BadRequestError, ImageTooLargeError, UnsupportedImageError)
}
