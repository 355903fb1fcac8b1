"""``AWS::S3::Bucket``, where MiniStack's CloudFormation differs: full buckets, access logging, default encryption."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from xml.sax.saxutils import escape

from emulator.ministack.cloudformation.resources import handler_message
from emulator.platform.errors import Response

_MESSAGE = re.compile(rb"<Message>(?P<text>[^<]*)</Message>")
_PARTITIONED = "PartitionedPrefix"


def install() -> None:
    """Let the type do what it does on AWS."""
    from ministack.services import s3
    from ministack.services.cloudformation import provisioners

    handlers: dict[str, Callable[..., Any]] = provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"]
    provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"] = {**handlers, "delete": _delete}
    provisioners._S3_BUCKET_CONFIGURATIONS = (
        *provisioners._S3_BUCKET_CONFIGURATIONS,
        ("LoggingConfiguration", _logging_xml, _put_logging, _no_logging),
        ("BucketEncryption", _encryption_xml, s3._put_bucket_encryption, s3._delete_bucket_encryption),
    )


def _delete(name: str, properties: Any) -> None:
    """Delete a bucket as DeleteBucket does, which refuses one that holds objects, versions or markers."""
    from ministack.services import s3

    if name in s3._buckets:
        _check(s3._delete_bucket(name))


def _check(response: Response) -> None:
    status, _, body = response
    if status >= 400:
        found = _MESSAGE.search(body)
        reason = found["text"].decode() if found else body.decode()
        raise ValueError(handler_message(f"{reason} (Service: S3, Status Code: {status})"))


def _logging_xml(properties: Mapping[str, Any]) -> bytes:
    """The LoggingConfiguration of a template as PutBucketLogging takes it."""
    partitioned = _PARTITIONED in properties.get("TargetObjectKeyFormat", {})
    key_format = f"<TargetObjectKeyFormat><{_PARTITIONED}/></TargetObjectKeyFormat>" if partitioned else ""
    target, prefix = (escape(properties.get(name, "")) for name in ("DestinationBucketName", "LogFilePrefix"))
    enabled = f"<TargetBucket>{target}</TargetBucket><TargetPrefix>{prefix}</TargetPrefix>{key_format}"
    return _status_xml(f"<LoggingEnabled>{enabled}</LoggingEnabled>")


def _status_xml(content: str) -> bytes:
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<BucketLoggingStatus xmlns="{namespace}">{content}</BucketLoggingStatus>'.encode()


def _put_logging(name: str, configuration: bytes) -> None:
    from ministack.services import s3

    # Without a destination a bucket logs to itself.
    own = f"<TargetBucket>{name}</TargetBucket>".encode()
    _check(s3._put_bucket_logging(name, configuration.replace(b"<TargetBucket></TargetBucket>", own)))


def _no_logging(name: str) -> None:
    from ministack.services import s3

    _check(s3._put_bucket_logging(name, _status_xml("")))


def _encryption_xml(properties: Mapping[str, Any]) -> bytes:
    """The BucketEncryption of a template as PutBucketEncryption takes it."""
    rules = []
    for rule in properties.get("ServerSideEncryptionConfiguration", []):
        default = rule.get("ServerSideEncryptionByDefault", {})
        members = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in default.items())
        key = str(rule.get("BucketKeyEnabled", False)).lower()
        rules.append(
            f"<Rule><ApplyServerSideEncryptionByDefault>{members}</ApplyServerSideEncryptionByDefault>"
            f"<BucketKeyEnabled>{key}</BucketKeyEnabled></Rule>"
        )
    return f"<ServerSideEncryptionConfiguration>{''.join(rules)}</ServerSideEncryptionConfiguration>".encode()
