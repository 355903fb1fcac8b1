"""Copies of objects onto themselves, which S3 takes only if they change something."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

from ministack.services import s3

from emulator.ministack.patching import around
from emulator.platform.errors import Response

#: Headers of what a copy may change of its source.
_CHANGES = (
    *("x-amz-checksum-algorithm", "x-amz-server-side-encryption", "x-amz-storage-class"),
    "x-amz-website-redirect-location",
)
_MESSAGE = (
    "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
    "metadata, storage class, website redirect location or encryption attributes."
)


def install() -> None:
    around(s3, "_copy_object", _copy)


def _copy(inner: Callable[..., Response], bucket: str, key: str, headers: dict[str, str]) -> Response:
    replaced = headers.get("x-amz-metadata-directive", "").upper() == "REPLACE"
    changes = replaced or any(name.startswith(_CHANGES) for name in headers) or bucket in s3._bucket_encryption
    # The source of another version has "?versionId=" behind it.
    if not changes and unquote(headers.get("x-amz-copy-source", "").removeprefix("/")) == f"{bucket}/{key}":
        refusal: Response = s3._error("InvalidRequest", _MESSAGE, 400)
        return refusal
    return inner(bucket, key, headers)
