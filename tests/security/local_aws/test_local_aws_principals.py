"""Attempts not to be whom a policy denies something, and of sessions to do more, or to last longer, than they may."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from local_aws_harness import LocalAws, policy, refused

ACCOUNT = "000000000000"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
USER = f"arn:aws:iam::{ACCOUNT}:user/reader-of-named"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/team/named"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/named/session"
EVERYTHING = policy({"Action": "*", "Resource": "*"})
TRUST = policy({"Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"})


@pytest.fixture(scope="module")
def callers(aws: LocalAws) -> dict[str, dict[str, str]]:
    """Credentials of a user, and of a session of a role with a path; identity policies allow both everything."""
    user = aws.user("reader-of-named", EVERYTHING)
    iam = aws.client("iam")
    iam.create_role(RoleName="named", Path="/team/", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.put_role_policy(RoleName="named", PolicyName="p", PolicyDocument=json.dumps(EVERYTHING))
    session = aws.client("sts", user).assume_role(RoleArn=ROLE, RoleSessionName="session")["Credentials"]
    aws.client("s3").create_bucket(Bucket="principals")
    aws.client("s3").put_object(Bucket="principals", Key="k", Body=b"")
    return {"user": user, "session": session}


def when(operator: str, value: str) -> dict[str, Any]:
    return {"Principal": "*", "Condition": {operator: {"aws:PrincipalArn": value}}}


def all_but(*names: str, kind: str = "AWS") -> dict[str, Any]:
    return {"NotPrincipal": {kind: list(names)}}


@pytest.mark.parametrize(
    ("caller", "denied", "read"),
    [
        ("session", when("StringEquals", ROLE), False),
        ("session", when("ArnLike", "arn:aws:iam::*:role/team/*"), False),
        ("session", when("ArnLike", "arn:aws:iam::*:role/named"), True),
        ("session", when("ArnNotEquals", ROLE), True),
        ("session", all_but(ROLE, SESSION, ACCOUNT), True),
        ("session", all_but(ROLE, ROOT), False),
        ("session", all_but(USER, ROOT), False),
        ("session", all_but("s3.amazonaws.com", kind="Service"), False),
        ("user", all_but(USER, ROOT), True),
        ("user", all_but(USER), False),  # whose account is denied
        ("user", all_but(ROLE, SESSION, ROOT), False),
    ],
)
def test_a_denial_means_the_role_of_a_session_and_all_that_it_does_not_leave_out(
    aws: LocalAws, callers: dict[str, dict[str, str]], caller: str, denied: dict[str, Any], read: bool
) -> None:
    statement = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::principals/*", **denied}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    aws.client("s3").put_bucket_policy(Bucket="principals", Policy=document)
    reading = aws.send("GET", "/principals/k", sign="s3", key=callers[caller])
    assert (reading.status, b"AccessDenied" in reading.data) == ((200, False) if read else (403, True))


def test_session_keys_need_their_token(aws: LocalAws, callers: dict[str, dict[str, str]]) -> None:
    aws.client("s3", callers["session"]).list_buckets()
    without = {name: callers["session"][name] for name in ("AccessKeyId", "SecretAccessKey")}
    refused(aws.client("s3", without).list_buckets, "InvalidAccessKeyId")


def test_a_session_lasts_as_long_as_its_role_says_and_a_chained_one_an_hour(aws: LocalAws) -> None:
    assume = policy({"Action": "sts:AssumeRole", "Resource": "*"})
    request = {"RoleArn": aws.role("chained", TRUST, assume), "RoleSessionName": "session"}
    user = aws.client("sts", aws.user("chainer", assume))
    refused(user.assume_role, "MaxSessionDuration", DurationSeconds=3601, **request)
    aws.client("iam").update_role(RoleName="chained", MaxSessionDuration=43200)
    short = {"Action": "AssumeRole", "Version": "2011-06-15", "DurationSeconds": "899", **request}  # boto3 refuses it
    form = {"content_type": "application/x-www-form-urlencoded"}
    answer = aws.send("POST", "/", urlencode(short), sign="sts", **form)
    assert (answer.status, b"DurationSeconds of AssumeRole" in answer.data) == (400, True)
    refused(user.assume_role, "DurationSeconds", DurationSeconds=43201, **request)
    chained = aws.client("sts", user.assume_role(DurationSeconds=43200, **request)["Credentials"])
    refused(chained.assume_role, "1 hour", DurationSeconds=3601, **request)
    chained.assume_role(DurationSeconds=3600, **request)
