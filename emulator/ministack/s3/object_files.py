"""The objects of a training job's channel, copied from the files that S3 keeps them in.

Each object is asked for as any other request of the role, with IAM, policies, keys and access logs, but many at a time
and without HTTP, which would cost several milliseconds of one processor for each.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from ministack import app
from ministack.core import iam_actions, iam_evaluator, responses
from ministack.services import s3

from emulator.ministack.door.enforcement import refusal
from emulator.ministack.patching import around
from emulator.platform import settings
from emulator.platform.errors import Response

_METADATA = "x-amz-meta-"
#: After this the server has ended, and nobody answers.
_TIMEOUT_SECONDS = 60.0
#: Set while objects are asked for here: the policies of those who ask, each read once.
_principals: ContextVar[dict[tuple[Any, ...], Any] | None] = ContextVar("principals", default=None)


@dataclass(frozen=True)
class ObjectFile:
    path: str
    size: int

    def __len__(self) -> int:
        return self.size


class ObjectFiles:
    """Copies objects for the holder of given credentials."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def install(self) -> None:
        around(s3, "_read_body", _read_body)
        around(iam_evaluator, "resolve_principal", _resolve_principal)
        # MiniStack looks at each folder of a path for links, twice for each object. The state folder has none, and a
        # key with ".." is kept under another name.
        lexical = types.SimpleNamespace(**{**vars(os.path), "realpath": os.path.abspath})
        s3.os = types.SimpleNamespace(**{**vars(os), "path": lexical})

    def start(self) -> None:
        """Take requests; call it on the event loop, to which all that MiniStack keeps belongs."""
        self._loop = asyncio.get_running_loop()

    def copy(
        self, credentials: Mapping[str, str], region: str, bucket: str, targets: Sequence[tuple[str, Path]]
    ) -> Iterator[dict[str, str]]:
        """Copy objects to files, and yield the metadata of each; call it on any thread but the event loop's.

        All of `targets`, pairs of key and file, are asked for before the first is copied, so give some dozens. What S3
        refuses is a ClientError.
        """
        assert self._loop is not None
        answers = _answers(credentials["AWS_ACCESS_KEY_ID"], region, bucket, [key for key, _ in targets])
        found = asyncio.run_coroutine_threadsafe(answers, self._loop).result(_TIMEOUT_SECONDS)
        for (_, path), (status, headers, body) in zip(targets, found, strict=True):
            if status != 200:
                raise _error(status, body)
            if isinstance(body, ObjectFile):
                shutil.copyfile(body.path, path)  # a link would let the job write into the object
            else:
                path.write_bytes(body)
            yield {name[len(_METADATA) :]: text for name, text in headers.items() if name.startswith(_METADATA)}


async def _answers(access_key_id: str, region: str, bucket: str, keys: Sequence[str]) -> list[Response]:
    # As MiniStack begins any request; what is set here is this task's own.
    responses.set_request_account_id(app._request_account_scope(access_key_id))
    responses.set_request_region(region)
    _principals.set({})
    authorization = f"AWS4-HMAC-SHA256 Credential={access_key_id}/20000101/{region}/s3/aws4_request"
    headers = {"host": settings.BIND_HOST, "authorization": authorization}
    iam_evaluator.pin_request_origin(settings.BIND_HOST, secure_transport=True)
    iam_evaluator.pin_request_caller(headers)
    answers = []
    for key in keys:
        path = f"/{bucket}/{key}"
        context = iam_actions.s3_service_context("s3:GetObject", {}, path, headers)
        resources = iam_actions.s3_access_point_resources(f"arn:aws:s3:::{bucket}/{key}")
        asked = (refusal(access_key_id, "s3:GetObject", arn, context | more) for arn, more in resources)
        if denied := next(filter(None, asked), None):
            answer = s3._error(denied.code.removesuffix("Exception"), denied.message, 403)
        else:
            answer = await app.SERVICE_HANDLERS["s3"]("GET", path, headers, b"", {})
        answers.append(answer)
    return answers


def _read_body(inner: Callable[..., bytes], bucket: str, key: str, record: Any) -> bytes | ObjectFile:
    # What could not be written on a full disk is in memory.
    path = None if _principals.get() is None or record.get("body") else s3._object_disk_path(bucket, key)
    return inner(bucket, key, record) if path is None else ObjectFile(path, record["size"])


def _resolve_principal(inner: Callable[..., Any], *arguments: Any) -> Any:
    if (known := _principals.get()) is None:
        return inner(*arguments)
    if arguments not in known:
        known[arguments] = inner(*arguments)
    return known[arguments]


def _error(status: int, body: bytes) -> ClientError:
    answer = s3.fromstring(body)
    details = {name: answer.findtext(f".//{{*}}{name}") or "" for name in ("Code", "Message")}
    return ClientError({"Error": details, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")
