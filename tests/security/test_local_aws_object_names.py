"""Attempts to reach an object by a permission for another one, whose key differs in its slashes only."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from local_aws_harness import LocalAws, policy

BUCKET = "arn:aws:s3:::slashes"
OBJECTS = ("pub/a", "/pub/a", "pub//a", "pub/a/", "/")


@pytest.fixture(scope="module", autouse=True)
def bucket(aws: LocalAws) -> None:
    aws.client("s3").create_bucket(Bucket="slashes")
    for key in OBJECTS:
        aws.client("s3").put_object(Bucket="slashes", Key=key, Body=f"object {key}")


def allow(action: str | list[str], *keys: str) -> dict[str, Any]:
    return {"Action": action, "Resource": [f"{BUCKET}/{key}" for key in keys]}


COPY = {"x_amz_copy_source": "slashes//pub/a"}
ATTRIBUTES = {"x_amz_object_attributes": "ObjectSize"}
BYPASS = {"x_amz_bypass_governance_retention": "true"}
ON_BUCKETS = {"Action": ["s3:ListBucket", "s3:CreateBucket", "s3:DeleteBucket"], "Resource": "*"}
DENY = {**allow("s3:*", "pub//*"), "Effect": "Deny"}
#: By name: what a user may, the method, what stands behind the bucket in the path, and headers.
ATTACKS: dict[str, tuple[list[dict[str, Any]], str, str, dict[str, str]]] = {
    "a slash before": ([allow("s3:GetObject", "pub/*")], "GET", "/pub/a", {}),
    "a slash within": ([allow("s3:GetObject", "pub/a")], "GET", "pub//a", {}),
    "a slash behind": ([allow("s3:GetObject", "pub/a")], "GET", "pub/a/", {}),
    "metadata": ([allow("s3:GetObject", "pub/a")], "HEAD", "pub//a", {}),
    "written": ([allow("s3:PutObject", "in/*")], "PUT", "/in/evil", {}),
    "deleted": ([allow("s3:DeleteObject", "pub/*")], "DELETE", "/pub/a", {}),
    "denied": ([allow("s3:*", "*"), DENY], "GET", "pub//a", {}),
    "read by rights on buckets": ([ON_BUCKETS], "GET", "/", {}),
    "written by rights on buckets": ([ON_BUCKETS], "PUT", "/", {}),
    "deleted by rights on buckets": ([ON_BUCKETS], "DELETE", "/", {}),
    "copied": ([allow(["s3:GetObject", "s3:PutObject"], "pub/*")], "PUT", "pub/b", COPY),
    "attributes": (
        [allow("s3:GetObjectAttributes", "*"), allow("s3:GetObject", "pub/*")],
        *("GET", "/pub/a?attributes", ATTRIBUTES),
    ),
    "not retained": (
        [allow("s3:DeleteObject", "*"), allow("s3:BypassGovernanceRetention", "pub/a")],
        *("DELETE", "pub//a", BYPASS),
    ),
}


@pytest.mark.parametrize("way", ["path", "host", "presigned"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_key_is_what_it_is_to_the_last_slash(aws: LocalAws, attack: str, way: str) -> None:
    statements, method, rest, headers = ATTACKS[attack]
    document = policy(*statements)
    key = aws.user(f"slashes-{attack}-{way}".replace(" ", "-"), document)
    by_host = {"host": f"slashes.s3.localhost:{aws.port}"} if way == "host" else {}
    path = f"/{rest}" if by_host else f"/slashes/{rest}"
    in_query = 60 if way == "presigned" else 0
    answer = aws.send(method, path, sign="s3", key=key, in_query=in_query, **headers, **by_host)
    assert (answer.status, b"object" in answer.data) == (403, False), answer.data
    left = {found["Key"] for found in aws.client("s3").list_objects_v2(Bucket="slashes")["Contents"]}
    assert left == set(OBJECTS)


def test_a_permission_for_a_key_with_slashes_is_one_for_that_key(aws: LocalAws) -> None:
    for number, allowed in enumerate(OBJECTS):
        s3 = aws.client("s3", aws.user(f"slashes-{number}", policy(allow("s3:GetObject", allowed))))
        for key in OBJECTS:
            if key == allowed:
                assert s3.get_object(Bucket="slashes", Key=key)["Body"].read() == f"object {key}".encode()
            else:
                with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
                    s3.get_object(Bucket="slashes", Key=key)


def test_several_objects_are_deleted_by_their_exact_keys(aws: LocalAws) -> None:
    key = aws.user("slashes-deleter", policy(allow("s3:DeleteObject", "pub/a")))
    for named in ("/pub/a", "pub//a", "pub/a/"):
        body = f"<Delete><Object><Key>{named}</Key></Object></Delete>".encode()
        digest = base64.b64encode(hashlib.md5(body).digest()).decode()
        for path in ("/slashes?delete", "/slashes//?delete"):
            assert aws.send("POST", path, body, sign="s3", key=key, content_md5=digest).status in (400, 403), named


def test_a_version_is_copied_by_who_may_read_versions_only(aws: LocalAws) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="slashes-versions")
    s3.put_bucket_versioning(Bucket="slashes-versions", VersioningConfiguration={"Status": "Enabled"})
    old = s3.put_object(Bucket="slashes-versions", Key="a", Body=b"old")["VersionId"]
    s3.put_object(Bucket="slashes-versions", Key="a", Body=b"new")
    allowed = {"Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::slashes-versions/*"}
    key = aws.user("slashes-copier", policy(allowed))
    for query in (f"versionId={old}", f"versionId={old}&versionId=", f"%76ersionId={old}"):
        source = f"slashes-versions/a?{query}"
        answer = aws.send("PUT", "/slashes-versions/b", sign="s3", key=key, x_amz_copy_source=source)
        assert answer.status == 403, (query, answer.data)
