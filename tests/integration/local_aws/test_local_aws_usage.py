"""IAM's records say who used what and when, also what was denied, after a restart, and how long ago it was."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local_aws_harness import policy, refused
from sagemaker_local import local_aws

OWN = json.dumps(policy({"Action": ["ssm:*", "s3:GetObject"], "Resource": "arn:aws:ssm:*:*:parameter/own"}))
TRUST = policy({"Principal": {"AWS": "000000000000"}, "Action": "sts:AssumeRole"})


def details(iam: Any, arn: str) -> dict[str, Any]:
    """The last use of each service and tracked action that something allows."""
    job = iam.generate_service_last_accessed_details(Arn=arn, Granularity="ACTION_LEVEL")["JobId"]
    found = {
        it["ServiceNamespace"]: it for it in iam.get_service_last_accessed_details(JobId=job)["ServicesLastAccessed"]
    }
    actions = {name: it.pop("TrackedActionsLastAccessed", []) for name, it in found.items()}
    return found | {f"{name}:{it['ActionName']}": it for name, listed in actions.items() for it in listed}


def days_ago(date: datetime) -> int:
    return (datetime.now(UTC) - date).days


def test_iam_knows_what_was_used_and_when(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        key = aws.user("user", policy({"Action": "sts:AssumeRole", "Resource": "*"}))
        roles = {name: aws.role(name, TRUST) for name in ("used", "idle")}
        shared = aws.iam.create_policy(PolicyName="shared", PolicyDocument=OWN)["Policy"]["Arn"]
        group = aws.iam.create_group(GroupName="group")["Group"]["Arn"]
        aws.iam.add_user_to_group(GroupName="group", UserName="user")
        aws.iam.attach_group_policy(GroupName="group", PolicyArn=shared)
        aws.iam.attach_role_policy(RoleName="used", PolicyArn=shared)
        last = aws.iam.get_access_key_last_used(AccessKeyId=key["AccessKeyId"])["AccessKeyLastUsed"]
        assert last == {"Region": "N/A", "ServiceName": "N/A"}
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
            assert "s3:GetObject" not in found  # an action on data
            assert {roles["used"], "eu-west-1"} < {*map(str, found["ssm"].values())}
            assert {roles["used"], "eu-west-1"} < {*map(str, found["ssm:GetParameter"].values())}
            assert "LastAccessedTime" not in found["ssm:GetParameters"]
            assert found["s3"]["TotalAuthenticatedEntities"] == 0
        assert details(aws.iam, group)["ssm"]["TotalAuthenticatedEntities"] == 0
        assert details(aws.iam, aws.iam.get_user(UserName="user")["User"]["Arn"]).keys() >= {"ssm", "sts"}
        refused(aws.iam.generate_service_last_accessed_details, "NoSuchEntity", Arn=roles["used"] + "x")

        last = aws.iam.get_access_key_last_used(AccessKeyId=key["AccessKeyId"])["AccessKeyLastUsed"]
        assert (days_ago(last["LastUsedDate"]), last["ServiceName"]) == (100, "sts")
        aws.iam.generate_credential_report()
        (row,) = list(csv.DictReader(aws.iam.get_credential_report()["Content"].decode().splitlines()))[1:]
        assert row["access_key_1_last_used_date"] == f"{last['LastUsedDate']:%Y-%m-%dT%H:%M:%SZ}"
        assert (row["access_key_1_last_used_service"], row["access_key_2_last_used_service"]) == ("sts", "N/A")
