"""Objects of S3 that are encrypted with a key of KMS. A caller who reads or writes one needs the key, too.

MiniStack keeps the key's name with the object and asks nobody about it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from emulator.ministack.door import service_keys
from emulator.ministack.door.enforcement import answer
from emulator.platform.errors import Response

_ALGORITHM_HEADER = "x-amz-server-side-encryption"
_KEY_HEADER = f"{_ALGORITHM_HEADER}-aws-kms-key-id"
#: The key that AWS manages for S3 is there for everybody in the account.
_MANAGED = "alias/aws/s3"
#: Headers and query of the request that S3 answers; None where a service of AWS writes on its own account.
_asked: ContextVar[tuple[dict[str, str], Mapping[str, Any]] | None] = ContextVar("asked", default=None)


def install() -> None:
    """Stand where every way into S3 ends: where a key is chosen, an object is read, and a source is copied."""
    from ministack.services import s3

    s3.handle_request = _noting(s3.handle_request)
    s3._resolve_sse_write_headers = _writing(s3._resolve_sse_write_headers)
    s3._get_object = _reading(s3._get_object)
    s3._check_sse_c_copy_source = _copying(s3._check_sse_c_copy_source)


def _noting(inner: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inner)
    async def handle_request(
        method: str, path: str, headers: dict[str, str], body: bytes, query: Mapping[str, Any], **options: Any
    ) -> Any:
        from ministack.core.router import extract_access_key_id
        from ministack.services import s3

        asked = (headers, query)
        if method == "POST" and not extract_access_key_id(headers, query):
            # As S3 verifies it: of several fields of one name the last counts.
            parts = s3._parse_multipart_form(headers.get("content-type", ""), body)
            fields = {name.lower(): value.decode("latin-1") for name, _, _, value in parts}
            signer = fields.get("x-amz-credential") or fields.get("awsaccesskeyid", "")
            asked = (headers, {**query, "AWSAccessKeyId": [signer.partition("/")[0]]})
        token = _asked.set(None if options.get("internal") else asked)
        try:
            return await inner(method, path, headers, body, query, **options)
        finally:
            _asked.reset(token)

    return handle_request


def _writing(inner: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inner)
    def resolve_headers(headers: dict[str, str], bucket: str) -> Any:
        from ministack.core.responses import get_account_id, get_region

        if headers.get(_ALGORITHM_HEADER) == "aws:kms" and not headers.get(_KEY_HEADER):  # MiniStack wants it by name
            headers = {**headers, _KEY_HEADER: f"arn:aws:kms:{get_region()}:{get_account_id()}:{_MANAGED}"}
        kept, error = inner(headers, bucket)
        _, query = _asked.get() or ({}, {})
        # The parts of an upload are put together from what was encrypted before.
        actions = ("kms:GenerateDataKey", *(["kms:Decrypt"] if "uploads" in query else []))
        refused = _refusal((kept or {}).get(_KEY_HEADER), *actions)
        return (None, refused) if refused else (kept, error)

    return resolve_headers


def _reading(inner: Callable[..., Response]) -> Callable[..., Response]:
    @functools.wraps(inner)
    def get_object(*arguments: Any, **options: Any) -> Response:
        response = inner(*arguments, **options)
        return _refusal(response[1].get(_KEY_HEADER), "kms:Decrypt") or response

    return get_object


def _copying(inner: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inner)
    def check_source(headers: dict[str, str], source: dict[str, Any]) -> Any:
        return inner(headers, source) or _refusal(source.get("preserved_headers", {}).get(_KEY_HEADER), "kms:Decrypt")

    return check_source


def _refusal(key_id: str | None, *actions: str) -> Response | None:
    """Why a caller may not use a key through S3."""
    from ministack.core import iam_evaluator
    from ministack.core.router import extract_access_key_id

    asked = _asked.get()
    if asked is None or not key_id:
        return None
    # S3 has verified who signed a form; to MiniStack's IAM the request that brings it is nobody's.
    if "AWSAccessKeyId" in asked[1]:
        iam_evaluator._anonymous.set(False)
    refused = service_keys.refused(key_id, "s3", actions, extract_access_key_id(*asked))
    if refused and refused.code in service_keys.UNUSABLE:
        return answer("s3", f"KMS.{refused.code}", refused.message, 400)
    return answer("s3", "AccessDenied", refused.message) if refused else None
