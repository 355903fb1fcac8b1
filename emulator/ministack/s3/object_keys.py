"""Objects of S3 that are encrypted with a key of KMS. A caller who reads or writes one needs the key, too.

MiniStack keeps the key's name with the object and asks nobody about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.core.router import extract_access_key_id
from ministack.services import s3

from emulator.ministack.door import service_keys
from emulator.ministack.door.enforcement import answer
from emulator.ministack.patching import around
from emulator.platform.errors import Response

_ALGORITHM_HEADER = "x-amz-server-side-encryption"
KEY_HEADER = f"{_ALGORITHM_HEADER}-aws-kms-key-id"
#: The key that AWS manages for S3 is there for everybody in the account.
_MANAGED = "alias/aws/s3"
#: Headers and query of the request that S3 answers; None where a service of AWS writes on its own account.
_asked: ContextVar[tuple[dict[str, str], Mapping[str, Any]] | None] = ContextVar("asked", default=None)


def install() -> None:
    """Stand where every way into S3 ends: where a key is chosen, an object is read, and a source is copied."""
    around(s3, "handle_request", _handle_request)
    around(s3, "_resolve_sse_write_headers", _resolve_headers)
    around(s3, "_get_object", _get_object)
    around(s3, "_check_sse_c_copy_source", _check_source)


async def _handle_request(
    inner: Callable[..., Any],
    method: str, path: str, headers: dict[str, str], body: bytes, query: Mapping[str, Any], **options: Any,
) -> Any:  # fmt: skip
    """Note who asks."""
    token = _asked.set(None if options.get("internal") else (headers, query))
    try:
        return await inner(method, path, headers, body, query, **options)
    finally:
        _asked.reset(token)


def _resolve_headers(inner: Callable[..., Any], headers: dict[str, str], bucket: str) -> Any:
    if headers.get(_ALGORITHM_HEADER) == "aws:kms" and not headers.get(KEY_HEADER):  # MiniStack wants it by name
        headers = {**headers, KEY_HEADER: f"arn:aws:kms:{get_region()}:{get_account_id()}:{_MANAGED}"}
    kept, error = inner(headers, bucket)
    _, query = _asked.get() or ({}, {})
    # The parts of an upload are put together from what was encrypted before.
    actions = ("kms:GenerateDataKey", *(["kms:Decrypt"] if "uploads" in query else []))
    refused = _refusal((kept or {}).get(KEY_HEADER), *actions)
    return (None, refused) if refused else (kept, error)


def _get_object(inner: Callable[..., Response], *arguments: Any, **options: Any) -> Response:
    response = inner(*arguments, **options)
    return _refusal(response[1].get(KEY_HEADER), "kms:Decrypt") or response


def _check_source(inner: Callable[..., Any], headers: dict[str, str], source: dict[str, Any]) -> Any:
    return inner(headers, source) or _refusal(source.get("preserved_headers", {}).get(KEY_HEADER), "kms:Decrypt")


def _refusal(key_id: str | None, *actions: str) -> Response | None:
    """Why a caller may not use a key through S3."""
    asked = _asked.get()
    if asked is None or not key_id:
        return None
    refused = service_keys.refused(key_id, "s3", actions, extract_access_key_id(*asked))
    if refused and refused.code in service_keys.UNUSABLE:
        return answer("s3", f"KMS.{refused.code}", refused.message, 400)
    return answer("s3", "AccessDenied", refused.message) if refused else None
