"""Buckets of stacks and their policies, where MiniStack's CloudFormation differs from S3; whom a bucket may notify."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any
from xml.sax.saxutils import escape

from ministack.services import s3
from ministack.services.cloudformation import provisioners

from emulator.ministack.cloudformation.resources import handler_message
from emulator.ministack.door.enforcement import service_may
from emulator.ministack.functions.corrections import wrap_handlers
from emulator.ministack.patching import around, within_time
from emulator.platform.awsapi import service_model
from emulator.platform.errors import Response

logger = logging.getLogger(__name__)
_may = functools.partial(service_may, "s3.amazonaws.com", "lambda:InvokeFunction")


def install() -> None:
    around(s3, "_cors_answer", within_time)
    handlers: dict[str, Callable[..., Any]] = provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"]
    provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"] = {
        **handlers,
        **{name: functools.partial(_tagging, handlers[name]) for name in ("create", "update")},
        "delete": _delete,
    }
    around(s3, "_put_bucket_notification", _notify)
    around(s3, "_deliver_event_to_lambda", _deliver)
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
    before = set(s3._buckets)
    try:
        bucket, attributes = inner(name, *properties)
    except ValueError:
        for made in set(s3._buckets) - before:
            s3._delete_bucket(made)  # the stack has no record of what failed
        raise
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


def _notify(inner: Callable[..., Any], bucket: str, body: bytes, headers: dict[str, str] | None = None) -> Any:
    wanted = s3._parse_notification_config_raw(body.decode(errors="replace"))
    if b"EventBridgeConfiguration" in body or any(each["type"] != "lambda" for each in wanted):
        return s3._error("NotImplemented", "Buckets of the local AWS notify functions, and nothing else.", 501)
    events = service_model("s3").shape_for("Event").enum
    if unknown := [event for each in wanted for event in each["events"] if event not in events]:
        return s3._error("InvalidArgument", f"The event '{unknown[0]}' is not supported for notifications", 400)
    if any(_overlap(one, other) for one, other in itertools.combinations(wanted, 2)):
        reason = "Configurations overlap. Configurations on the same bucket cannot share a common event type."
        return s3._error("InvalidArgument", reason, 400)
    if not all(_may(each["arn"], f"arn:aws:s3:::{bucket}") for each in wanted):
        return s3._error("InvalidArgument", "Unable to validate the following destination configurations", 400)
    return inner(bucket, body, headers)


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether an event on a key can be of two configurations."""
    start, longer = sorted((each["filter_prefix"] or "" for each in (one, other)), key=len)
    end, longest = sorted((each["filter_suffix"] or "" for each in (one, other)), key=len)
    pairs = ((one["events"], other["events"]), (other["events"], one["events"]))
    shared = any(s3._event_matches(event, patterns) for events, patterns in pairs for event in events)
    return shared and longer.startswith(start) and longest.endswith(end)


def _deliver(inner: Callable[..., None], function: str, event: Any, region: str) -> None:
    if _may(function, bucket := event["Records"][0]["s3"]["bucket"]["arn"]):
        inner(function, event, region)
    else:
        logger.warning("%s may not call %s: the function's policy does not allow it", bucket, function)
