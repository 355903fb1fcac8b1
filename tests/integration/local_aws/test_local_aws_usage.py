"""IAM's records say who used what and when, also what was denied, after a restart, and how long ago it was."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from local_aws_harness import LocalAws, policy, refused
from sagemaker_local import local_aws

OWN = policy({"Action": ["ssm:*", "s3:GetObject"], "Resource": "arn:aws:ssm:*:*:parameter/own"})


def details(iam: Any, arn: str) -> dict[str, Any]:
    """The last use of each service and tracked action that something allows."""
    job = iam.generate_service_last_accessed_details(Arn=arn, Granularity="ACTION_LEVEL")["JobId"]
    found = iam.get_service_last_accessed_details(JobId=job)["ServicesLastAccessed"]
    actions = {it["ServiceNamespace"]: it.pop("TrackedActionsLastAccessed", []) for it in found}
    tracked = {f"{name}:{it['ActionName']}": it for name, listed in actions.items() for it in listed}
    return tracked | {it["ServiceNamespace"]: it for it in found}


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[LocalAws]:
    with local_aws(tmp_path) as made:
        yield made


def days_ago(date: datetime) -> int:
    return (datetime.now(UTC) - date).days


def test_iam_knows_what_was_used_and_when(aws: LocalAws) -> None:
    key = aws.user("user", policy({"Action": "sts:AssumeRole", "Resource": "*"}))
    trusted = policy({"Principal": {"AWS": "000000000000"}, "Action": "sts:AssumeRole"})
    roles = {name: aws.role(name, trusted) for name in ("used", "idle")}
    shared = aws.iam.create_policy(PolicyName="shared", PolicyDocument=json.dumps(OWN))["Policy"]["Arn"]
    group = aws.iam.create_group(GroupName="group")["Group"]["Arn"]
    aws.iam.add_user_to_group(GroupName="group", UserName="user")
    aws.iam.attach_group_policy(GroupName="group", PolicyArn=shared)
    aws.iam.attach_role_policy(RoleName="used", PolicyArn=shared)
    assert aws.iam.get_access_key_last_used(AccessKeyId=key["AccessKeyId"])["AccessKeyLastUsed"] == {
        "Region": "N/A", "ServiceName": "N/A",
    }  # fmt: skip
    session = aws.client("sts", key).assume_role(RoleArn=roles["used"], RoleSessionName="session")["Credentials"]
    refused(aws.client("ssm", session, region_name="eu-west-1").get_parameter, "not authorized", Name="/other")

    aws.down()
    aws.age(100)
    aws.up()
    listed = {role["RoleName"]: role for role in aws.iam.get_account_authorization_details()["RoleDetailList"]}
    for described in (listed, {name: aws.iam.get_role(RoleName=name)["Role"] for name in roles}):
        last = described["used"]["RoleLastUsed"]
        assert (days_ago(last["LastUsedDate"]), last["Region"]) == (100, "eu-west-1")
        assert described["idle"]["RoleLastUsed"] == {}
    assert not any("RoleLastUsed" in role for role in aws.iam.list_roles()["Roles"])

    for arn in (roles["used"], shared):
        found = details(aws.iam, arn)
        assert found.keys() >= {"ssm", "s3", "ssm:GetParameters"}
        assert "s3:GetObject" not in found  # an action on data
        for use in (found["ssm"], found["ssm:GetParameter"]):
            assert roles["used"] in use.values()
            assert "eu-west-1" in use.values()
        assert "LastAccessedTime" not in found["ssm:GetParameters"]
        assert found["s3"]["TotalAuthenticatedEntities"] == 0
    assert details(aws.iam, group)["ssm"]["TotalAuthenticatedEntities"] == 0
    assert details(aws.iam, "arn:aws:iam::000000000000:user/user").keys() >= {"ssm", "sts"}
    refused(aws.iam.generate_service_last_accessed_details, "NoSuchEntity", Arn=roles["used"] + "x")

    last = aws.iam.get_access_key_last_used(AccessKeyId=key["AccessKeyId"])["AccessKeyLastUsed"]
    assert (days_ago(last["LastUsedDate"]), last["ServiceName"]) == (100, "sts")
    aws.iam.generate_credential_report()
    (row,) = list(csv.DictReader(aws.iam.get_credential_report()["Content"].decode().splitlines()))[1:]
    assert (row["access_key_1_last_used_service"], row["access_key_2_last_used_service"]) == ("sts", "N/A")
    assert days_ago(datetime.fromisoformat(row["access_key_1_last_used_date"])) == 100

    aws.down()
    aws.age(301)
    aws.up()
    assert aws.iam.get_role(RoleName="used")["Role"]["RoleLastUsed"] == {}  # not in the trailing 400 days
