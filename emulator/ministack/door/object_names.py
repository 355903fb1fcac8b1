"""Which object a request to S3 names: the one that is read or written, to the last slash of its key.

MiniStack leaves out empty parts of a path when it asks IAM, and keeps them in the keys of objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

_ARN = "arn:aws:s3:::"


def install() -> None:
    """Stand where MiniStack finds out what it asks IAM about a request to S3."""
    from ministack.core import iam_actions
    from ministack.services import s3

    action_of = iam_actions._s3_action
    resource_of = iam_actions.extract_resource_arn
    further_of = iam_actions.s3_additional_checks

    def s3_action(method: str, path: str, query: Mapping[str, Any]) -> str | None:
        bucket, key = s3._parse_bucket_key(path, {})
        return action_of(method, f"/{bucket}/key" if key else f"/{bucket}", query)  # type: ignore[no-any-return]

    def extract_resource_arn(
        service: str, method: str, path: str, headers: Any, body: bytes, query: Any, region: str, account: str
    ) -> str:
        if service == "s3":
            bucket, key = s3._parse_bucket_key(path, {})
            if key:
                return f"{_ARN}{bucket}/{key}"
            path = f"/{bucket}"
        return resource_of(service, method, path, headers, body, query, region, account)  # type: ignore[no-any-return]

    def s3_additional_checks(method: str, path: str, headers: Any, body: bytes, query: Any) -> list[tuple[str, str]]:
        bucket, key = s3._parse_bucket_key(path, {})
        checks: list[tuple[str, str]] = further_of(
            method, f"/{bucket}/key" if key else f"/{bucket}", headers, body, query
        )
        if key and s3_action(method, path, query) != "PutObject":  # which asks about the source of a copy alone
            return [(action, f"{_ARN}{bucket}/{key}") for action, _ in checks]
        if deletes_version(method, path, query, body):  # on a bucket's host, nobody has asked for that yet
            checks.append(("s3:DeleteObjectVersion", extract_resource_arn("s3", method, path, {}, body, query, "", "")))
        return checks

    iam_actions._s3_action = s3_action
    iam_actions._s3_source_object = _source
    iam_actions.extract_resource_arn = extract_resource_arn
    iam_actions.s3_additional_checks = s3_additional_checks


def deletes_version(method: str, path: str, query: Mapping[str, Any], body: bytes) -> bool:
    """Whether the first object of DeleteObjects, which IAM is asked about first, is a version of one."""
    from ministack.core import iam_actions
    from ministack.services import s3

    bucket, key = s3._parse_bucket_key(path, {})
    if method != "POST" or key or "delete" not in query:
        return False
    targets = iam_actions._s3_batch_delete_targets(bucket, body)
    return bool(targets and targets[0][1])


def _source(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The ARN of an object that is copied, and its version, as S3 itself reads them."""
    path, _, query = headers.get("x-amz-copy-source", "").lstrip("/").partition("?")
    named = unquote(path)
    version = parse_qs(query, keep_blank_values=True).get("versionId", [""])[0]
    return (f"{_ARN}{named}", version) if "/" in named else None
