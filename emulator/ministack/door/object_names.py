"""What IAM is asked about an object of S3, by its key to the last slash.

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
    further_of = iam_actions.s3_additional_checks

    def plain(path: str) -> str:
        """The path without empty parts."""
        bucket, key = s3._parse_bucket_key(path, {})
        return f"/{bucket}/key" if key else f"/{bucket}"

    def s3_action(method: str, path: str, query: Mapping[str, Any]) -> str | None:
        return action_of(method, plain(path), query)  # type: ignore[no-any-return]

    def s3_additional_checks(method: str, path: str, headers: Any, body: bytes, query: Any) -> list[tuple[str, str]]:
        bucket, key = s3._parse_bucket_key(path, {})
        checks: list[tuple[str, str]] = further_of(method, plain(path), headers, body, query)
        if key and s3_action(method, path, query) != "PutObject":  # which asks about the source of a copy alone
            return [(action, f"{_ARN}{bucket}/{key}") for action, _ in checks]
        # On a bucket's host, nobody has asked yet about the first object, which is a version.
        return [*version_deleted(method, path, query, body), *checks]

    iam_actions._s3_action = s3_action
    iam_actions._s3_source_object = _source
    iam_actions.s3_additional_checks = s3_additional_checks


def version_deleted(method: str, path: str, query: Mapping[str, Any], body: bytes) -> list[tuple[str, str]]:
    """What to ask about the first object of DeleteObjects where it is a version of one; IAM is asked about it first."""
    from ministack.core import iam_actions
    from ministack.services import s3

    bucket, key = s3._parse_bucket_key(path, {})
    if method != "POST" or key or "delete" not in query:
        return []
    targets = iam_actions._s3_batch_delete_targets(bucket, body)
    return [("s3:DeleteObjectVersion", arn) for arn, version in targets[:1] if version]


def _source(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The ARN of an object that is copied, and its version, as S3 itself reads them."""
    path, _, query = headers.get("x-amz-copy-source", "").lstrip("/").partition("?")
    named = unquote(path)
    version = parse_qs(query, keep_blank_values=True).get("versionId", [""])[0]
    return (f"{_ARN}{named}", version) if "/" in named else None
