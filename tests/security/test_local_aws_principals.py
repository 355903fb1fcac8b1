"""Attempts not to be whom a policy denies something, and of sessions to do more than they may."""

from __future__ import annotations

import json
from typing import Any

import botocore.exceptions
import pytest
from local_aws_harness import LocalAws, policy

ACCOUNT = "000000000000"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
USER = f"arn:aws:iam::{ACCOUNT}:user/reader-of-named"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/team/named"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/named/session"
EVERYTHING = policy({"Action": "*", "Resource": "*"})


@pytest.fixture(scope="module")
def callers(aws: LocalAws) -> dict[str, dict[str, str]]:
    """Credentials of a user, and of a session of a role with a path; identity policies allow both everything."""
    user = aws.user("reader-of-named", EVERYTHING)
    account = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [account]})
    iam = aws.client("iam")
    iam.create_role(RoleName="named", Path="/team/", AssumeRolePolicyDocument=trust)
    iam.put_role_policy(RoleName="named", PolicyName="p", PolicyDocument=json.dumps(EVERYTHING))
    session = aws.client("sts", user).assume_role(RoleArn=ROLE, RoleSessionName="session")["Credentials"]
    aws.client("s3").create_bucket(Bucket="principals")
    aws.client("s3").put_object(Bucket="principals", Key="k", Body=b"")
    return {"user": user, "session": session}


def may_read(aws: LocalAws, key: dict[str, str], statement: dict[str, Any]) -> bool:
    """Whether a caller reads an object when the bucket's policy has the statement."""
    document = {"Version": "2012-10-17", "Statement": [{"Resource": "arn:aws:s3:::principals/*", **statement}]}
    aws.client("s3").put_bucket_policy(Bucket="principals", Policy=json.dumps(document))
    try:
        aws.client("s3", key).get_object(Bucket="principals", Key="k")
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDenied"
        return False
    return True


@pytest.mark.parametrize(
    ("condition", "read"),
    [
        ({"StringEquals": {"aws:PrincipalArn": ROLE}}, False),
        ({"ArnEquals": {"aws:PrincipalArn": ROLE}}, False),
        ({"ArnLike": {"aws:principalarn": "arn:aws:iam::*:role/team/*"}}, False),
        ({"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/other/*"}}, False),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/named"}}, True),
        ({"ArnNotEquals": {"aws:PrincipalArn": ROLE}}, True),
        ({"ArnEquals": {"aws:PrincipalArn": SESSION}}, True),
    ],
)
def test_the_principal_of_a_session_is_its_role(
    aws: LocalAws, callers: dict[str, dict[str, str]], condition: dict[str, Any], read: bool
) -> None:
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Condition": condition}
    assert may_read(aws, callers["session"], statement) is read


@pytest.mark.parametrize(
    ("caller", "named", "read"),
    [
        ("user", {"AWS": [USER, ROOT]}, True),
        ("user", {"AWS": USER}, False),  # whose account is denied
        ("user", {"AWS": [ROLE, SESSION, ROOT]}, False),
        ("session", {"AWS": [ROLE, SESSION, ACCOUNT]}, True),
        ("session", {"AWS": [ROLE, ROOT]}, False),
        ("session", {"AWS": [USER, ROOT]}, False),
        ("session", {"Service": "s3.amazonaws.com"}, False),
    ],
)
def test_what_is_denied_to_all_but_some_is_denied_to_all_others(
    aws: LocalAws, callers: dict[str, dict[str, str]], caller: str, named: dict[str, Any], read: bool
) -> None:
    statement = {"Effect": "Deny", "NotPrincipal": named, "Action": "s3:GetObject"}
    assert may_read(aws, callers[caller], statement) is read


def test_a_session_without_mfa_or_of_a_federated_user_calls_neither_iam_nor_most_of_sts(aws: LocalAws) -> None:
    key = aws.user("session-holder", EVERYTHING)
    account = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
    assumed = {"RoleArn": aws.role("of-session-holder", {"Version": "2012-10-17", "Statement": [account]})}
    sts = aws.client("sts", key)
    own = sts.get_session_token()["Credentials"]
    federated = sts.get_federation_token(Name="federated", Policy=json.dumps(EVERYTHING))["Credentials"]
    for session in (own, federated):
        with pytest.raises(botocore.exceptions.ClientError, match="InvalidClientTokenId"):
            aws.client("iam", session).list_users()
        of_session = aws.client("sts", session)
        for call in (
            of_session.get_session_token,
            lambda client=of_session: client.get_federation_token(Name="again"),
            lambda client=of_session: client.decode_authorization_message(EncodedMessage="x"),
        ):
            with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
                call()
        assert of_session.get_caller_identity()["Account"] == ACCOUNT
        aws.client("s3", session).list_buckets()
    aws.client("sts", own).assume_role(RoleSessionName="session", **assumed)
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        aws.client("sts", federated).assume_role(RoleSessionName="session", **assumed)
    # The session of a role may do what the role may.
    allowed = policy({"Action": "iam:ListUsers", "Resource": "*"})
    aws.client("iam").put_role_policy(RoleName="of-session-holder", PolicyName="p", PolicyDocument=json.dumps(allowed))
    role = sts.assume_role(RoleSessionName="session", **assumed)["Credentials"]
    aws.client("iam", role).list_users()
