"""Objects of S3 that are encrypted with a key of KMS: whoever reads or writes one needs the key as well.

MiniStack keeps the key's name with the object and asks nobody about it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from emulator.ministack.routing import refusal
from emulator.platform.awsapi import Caller
from emulator.platform.errors import Response

_ALGORITHM_HEADER = "x-amz-server-side-encryption"
_KEY_HEADER = f"{_ALGORITHM_HEADER}-aws-kms-key-id"
#: The key that AWS manages for S3 is there for everybody in the account.
_MANAGED = "alias/aws/s3"
#: With these parameters a request is not about an object's body, or about one that was asked for before.
_NO_BODY = frozenset({"acl", "annotation", "legal-hold", "partNumber", "retention", "tagging", "uploadId"})


def install() -> None:
    """Stand before MiniStack's S3."""
    from ministack import app

    app.SERVICE_HANDLERS["s3"] = functools.partial(_handle, app.SERVICE_HANDLERS["s3"])


async def _handle(
    inner: Callable[..., Any], method: str, path: str, headers: Mapping[str, str], body: Any, query: Mapping[str, Any]
) -> Response:
    from ministack.core.responses import get_account_id, get_region
    from ministack.services import s3

    bucket, key = s3._parse_bucket_key(path, headers)
    if headers.get(_ALGORITHM_HEADER) == "aws:kms" and not headers.get(_KEY_HEADER):  # MiniStack wants it by name
        headers = {**headers, _KEY_HEADER: f"arn:aws:kms:{get_region()}:{get_account_id()}:{_MANAGED}"}
    may = functools.partial(_refusal, headers, query)
    if key and method in ("PUT", "POST") and _NO_BODY.isdisjoint(query):
        key_id = s3._resolve_sse_write_headers(s3._merge_hoisted_amz_headers(headers, query), bucket)[0] or {}
        # The parts of an upload are put together from what was encrypted before.
        actions = ("kms:GenerateDataKey", *(["kms:Decrypt"] if "uploads" in query else []))
        if refused := may(key_id.get(_KEY_HEADER), *actions):
            return refused
    if refused := may(_key_of_source(headers.get("x-amz-copy-source", "")), "kms:Decrypt"):
        return refused
    response: Response = await inner(method, path, headers, body, query)
    if method == "GET" and (refused := may(response[1].get(_KEY_HEADER), "kms:Decrypt")):
        return refused
    return response


def _key_of_source(source: str) -> str | None:
    """The key that an object to be copied is encrypted with."""
    from ministack.services import s3

    bucket, _, key = unquote(source.partition("?")[0]).lstrip("/").partition("/")
    found = (s3._buckets.get(bucket) or {"objects": {}})["objects"].get(key) or {}
    key_id: str | None = found.get("preserved_headers", {}).get(_KEY_HEADER)
    return key_id


def _refusal(
    headers: Mapping[str, str], query: Mapping[str, Any], key_id: str | None, *actions: str
) -> Response | None:
    """Why a caller may not use a key through S3."""
    from ministack.core.responses import get_account_id, get_region
    from ministack.services import kms, s3

    if not key_id or key_id.endswith(_MANAGED):
        return None
    record = kms._resolve_key(key_id)
    if record is None:
        return s3._error("KMS.NotFoundException", f"Key '{key_id}' does not exist", 400)  # type: ignore[no-any-return]
    if (unusable := kms._check_key_state(record)) is not None:
        error = json.loads(unusable[2])
        return s3._error(f"KMS.{error['__type']}", error["message"], 400)  # type: ignore[no-any-return]
    caller = Caller(get_account_id(), get_region())
    context = {"kms:ViaService": f"s3.{caller.region}.amazonaws.com"}
    for action in actions:
        if denied := refusal(action, record["Arn"], context, dict(headers), query, caller):
            return s3._error("AccessDenied", denied.message, 403)  # type: ignore[no-any-return]
    return None
