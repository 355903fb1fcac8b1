"""Server access logs of S3: records of requests, delivered late, as S3 does it.

MiniStack keeps a bucket's logging configuration and does nothing with it. Here every request to such a bucket makes a
record (S3 User Guide, "Amazon S3 server access log format"), which becomes part of an object in the target bucket after
a while: also when the bucket is gone meanwhile. Records are dropped when the target is gone, has no policy that lets
``logging.s3.amazonaws.com`` write, or is encrypted with a key by default; those that wait end with the server.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from ministack.core.iam_evaluator import caller_arn
from ministack.core.responses import get_account_id, request_scope
from ministack.services import s3

from emulator.ministack.door.enforcement import answer, service_may
from emulator.ministack.patching import around, around_service
from emulator.platform.errors import Response

logger = logging.getLogger(__name__)

_PRINCIPAL = "logging.s3.amazonaws.com"


@dataclass(frozen=True)
class _Destination:
    account: str
    region: str
    source: str
    target: str
    prefix: str


class AccessLogs:
    """Makes records, and delivers each between `seconds` and twice that later."""

    def __init__(self, seconds: float, note_change: Callable[[], None]) -> None:
        self._seconds = seconds
        self._note_change = note_change
        self._filling: dict[_Destination, list[str]] = defaultdict(list)
        self._full: dict[_Destination, list[str]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def install(self) -> None:
        around(s3, "_put_bucket_logging", _put_bucket_logging)
        around_service("s3", self._handle)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def _handle(
        self, inner: Callable[..., Any], method: str, path: str, headers: Mapping[str, str], body: Any, query: Any
    ) -> Response:
        bucket, key = s3._parse_bucket_key(path, headers)
        destination = _destination(bucket)  # before the request, which may delete the bucket
        started = time.monotonic()
        made: Response = await inner(method, path, headers, body, query)
        if destination is not None:
            record = _record(destination, method, path, key, headers, query, made, time.monotonic() - started)
            self._filling[destination].append(record)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._seconds, self._tick)
        return made

    def _tick(self) -> None:
        """Deliver what was there at the last tick; what came since waits for the next one."""
        for destination, records in self._full.items():
            try:
                _deliver(destination, records)
            except Exception:
                logger.exception("access logs of %s could not be delivered", destination.source)
        if self._full:
            self._note_change()
        self._full, self._filling = self._filling, defaultdict(list)
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._tick) if self._full else None


def _put_bucket_logging(inner: Callable[..., Response], name: str, body: bytes) -> Response:
    try:
        target = _text(s3.fromstring(body), "TargetBucket")
    except ElementTree.ParseError:
        return answer("s3", "MalformedXML", "The XML you provided was not well-formed.", 400)
    bucket, source = s3._buckets.get(target), s3._buckets.get(name)
    if target and bucket is None:
        return answer("s3", "InvalidTargetBucketForLogging", "The target bucket for logging does not exist", 400)
    if bucket and source and bucket["region"] != source["region"]:
        message = "S3 server access logs can be delivered to a bucket of the same region only."
        return answer("s3", "CrossLocationLoggingProhibited", message, 403)
    if b"PartitionedPrefix" in body:
        return answer("s3", "NotImplemented", "The local AWS delivers logs with a simple prefix only.", 501)
    return inner(name, body)


def _destination(bucket: str) -> _Destination | None:
    """Where the records of a bucket go; None when its logging is off."""
    stored = s3._bucket_logging_config.get(bucket)
    target, prefix = _target(stored) if stored else ("", "")
    return _Destination(get_account_id(), s3._buckets[bucket]["region"], bucket, target, prefix) if target else None


@functools.lru_cache  # asked for with every request
def _target(stored: bytes) -> tuple[str, str]:
    configuration = s3.fromstring(stored)
    return _text(configuration, "TargetBucket"), _text(configuration, "TargetPrefix")


def _deliver(destination: _Destination, records: list[str]) -> None:
    with request_scope(destination.account, destination.region):
        name = f"{time.strftime('%Y-%m-%d-%H-%M-%S', time.gmtime())}-{secrets.token_hex(8).upper()}"
        key = destination.prefix + name
        encrypted = "aws:kms" in s3._bucket_encryption.get(destination.target, "")
        arns = f"arn:aws:s3:::{destination.target}/{key}", f"arn:aws:s3:::{destination.source}"
        if destination.target in s3._buckets and not encrypted and service_may(_PRINCIPAL, "s3:PutObject", *arns):
            s3._put_object(destination.target, key, "".join(records).encode(), {"content-type": "text/plain"})
        else:
            logger.warning(
                "%d access log records of %s are dropped: %s is gone, does not let %s write, or has a default key",
                len(records), destination.source, destination.target, _PRINCIPAL,
            )  # fmt: skip


def _record(
    destination: _Destination, method: str, path: str, key: str, headers: Mapping[str, str], query: Mapping[str, Any],
    response: Response, seconds: float,
) -> str:  # fmt: skip
    """One line of an access log."""
    status, sent, body = response
    of_what = next((name.upper() for name, values in query.items() if values == [""]), "OBJECT" if key else "BUCKET")
    error = body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode() if status >= 400 else ""
    fields = (
        destination.account, destination.source, time.strftime("[%d/%b/%Y:%H:%M:%S +0000]", time.gmtime()),
        "127.0.0.1", caller_arn(), sent.get("x-amz-request-id", "-"), f"REST.{method}.{of_what}", key or "-",
        f'"{method} {path} HTTP/1.1"', status, error or "-", len(body), "-", int(seconds * 1000), "-",
        '"-"', f'"{headers.get("user-agent", "-")}"', sent.get("x-amz-version-id", "-"), "-", "SigV4", "-",
        "AuthHeader", headers.get("host", "-"), "TLSv1.3", "-", "-",
    )  # fmt: skip
    return " ".join(map(str, fields)) + "\n"


def _text(element: ElementTree.Element, tag: str) -> str:
    return element.findtext(f".//{{*}}{tag}") or ""
