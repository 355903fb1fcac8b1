"""Buckets of stacks and their policies, where MiniStack's CloudFormation differs from S3."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from xml.sax.saxutils import escape

from ministack.services import s3
from ministack.services.cloudformation import provisioners

from emulator.ministack.cloudformation.resources import handler_message
from emulator.ministack.functions.corrections import wrap_handlers
from emulator.ministack.patching import around, within_time
from emulator.platform.errors import Response


def install() -> None:
    around(s3, "_cors_answer", within_time)
    handlers: dict[str, Callable[..., Any]] = provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"]
    provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"] = {
        **handlers,
        **{name: functools.partial(_tagging, handlers[name]) for name in ("create", "update")},
        "delete": _delete,
    }
    provisioners._STACK_TAG_PROPERTY["AWS::S3::Bucket"] = ("Tags", "list")
    provisioners._S3_BUCKET_CONFIGURATIONS = (
        *provisioners._S3_BUCKET_CONFIGURATIONS,
        ("LoggingConfiguration", _logging_xml, _put_logging, _put_logging),
        ("BucketEncryption", _encryption_xml, s3._put_bucket_encryption, s3._delete_bucket_encryption),
        ("OwnershipControls", _ownership_xml, s3._put_bucket_ownership_controls, s3._delete_bucket_ownership_controls),
        ("AccessControl", _canned, _put_acl, _put_acl),
    )
    wrap_handlers("AWS::S3::BucketPolicy", _check_policy)


def _tagging(inner: Callable[..., Any], name: str, *properties: Any) -> Any:
    """Create or update a bucket (with its old and new properties), its tags with it."""
    *old, new, _stack = properties
    bucket, attributes = inner(name, *properties)
    # The CDK's auto_delete_objects empties only what has its tag.
    tags = dict(s3._bucket_tags.get(bucket) or {})
    provisioners._reconcile_tag_map(tags, old[0] if old else {}, new)
    s3._bucket_tags[bucket] = tags
    return bucket, attributes


def _delete(name: str, properties: Any) -> None:
    """Delete a bucket as DeleteBucket does, which refuses one that holds objects, versions or markers."""
    if name in s3._buckets:
        _check(s3._delete_bucket(name))


def _check(response: Response) -> None:
    status, _, body = response
    if status >= 400:
        reason = s3.fromstring(body).findtext(".//{*}Message")
        raise ValueError(handler_message(f"{reason} (Service: S3, Status Code: {status})"))


def _logging_xml(properties: Mapping[str, Any]) -> bytes:
    """The LoggingConfiguration of a template, as PutBucketLogging has it within its status."""
    target, prefix = (escape(properties.get(name, "")) for name in ("DestinationBucketName", "LogFilePrefix"))
    key_format = "".join(f"<{name}/>" for name in properties.get("TargetObjectKeyFormat", {}))
    enabled = f"<TargetBucket>{target}</TargetBucket><TargetPrefix>{prefix}</TargetPrefix>{key_format}"
    return f"<LoggingEnabled>{enabled}</LoggingEnabled>".encode()


def _put_logging(name: str, enabled: bytes = b"") -> None:
    # Without a destination a bucket logs to itself.
    own = f"<TargetBucket>{name}</TargetBucket>".encode()
    enabled = enabled.replace(b"<TargetBucket></TargetBucket>", own)
    namespace = b"http://s3.amazonaws.com/doc/2006-03-01/"
    status = b'<BucketLoggingStatus xmlns="%s">%s</BucketLoggingStatus>' % (namespace, enabled)
    _check(s3._put_bucket_logging(name, status))


def _encryption_xml(properties: Mapping[str, Any]) -> bytes:
    rules = []
    for rule in properties.get("ServerSideEncryptionConfiguration", []):
        default = rule.get("ServerSideEncryptionByDefault", {})
        members = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in default.items())
        members = f"<ApplyServerSideEncryptionByDefault>{members}</ApplyServerSideEncryptionByDefault>"
        key = str(rule.get("BucketKeyEnabled", False)).lower()
        rules.append(f"<Rule>{members}<BucketKeyEnabled>{key}</BucketKeyEnabled></Rule>")
    return f"<ServerSideEncryptionConfiguration>{''.join(rules)}</ServerSideEncryptionConfiguration>".encode()


def _ownership_xml(properties: Mapping[str, Any]) -> bytes:
    rules = "".join(
        f"<Rule><ObjectOwnership>{escape(rule['ObjectOwnership'])}</ObjectOwnership></Rule>"
        for rule in properties.get("Rules", [])
    )
    return f"<OwnershipControls>{rules}</OwnershipControls>".encode()


def _canned(name: str) -> str:
    """The name that S3 has for what a template calls LogDeliveryWrite."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def _put_acl(name: str, canned: str = "private") -> None:
    s3._bucket_acl.pop(name, None)
    if canned != "private":  # which a bucket without ACLs is, too
        _check(s3._put_bucket_acl(name, b"", {"x-amz-acl": canned}))


def _check_policy(_: str, properties: Mapping[str, Any]) -> None:
    """Put a policy as PutBucketPolicy does, which refuses a public one where the bucket blocks them."""
    _check(s3._put_bucket_policy(properties.get("Bucket", ""), json.dumps(properties.get("PolicyDocument")).encode()))
