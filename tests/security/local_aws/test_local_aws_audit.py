"""The audit of identities on the local AWS: what is unused is found and deleted, and comes back exactly as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_stage import FakeStage
from local_aws_harness import LocalAws, policy, trust
from sagemaker_local import local_aws

from cli.auditing import fixing, identities, unused
from cli.auditing import trust as trusting
from cli.auditing.account import Account
from cli.auditing.findings import Report, examine
from cli.errors import UsageError, WorkFailedError

OWNER = policy({"Principal": {"AWS": "000000000000"}, "Action": "sts:AssumeRole"})
READS = policy(
    {"Action": "s3:ListAllMyBuckets", "Resource": "*"},
    {"Action": "ssm:GetParameter", "Resource": "arn:aws:ssm:*:*:parameter/own"},
)
#: Roles that nobody used, and that are not deleted.
KEPT = ("cdk-hnb659fds-deploy-role", "stack", "self")
CHECKS = (
    identities.policy_rights,
    identities.combined_rights,
    trusting.role_trust,
    unused.unused_roles,
    unused.unused_permissions,
    unused.unused_policies,
    unused.sign_in,
)


def account_of(aws: LocalAws, key: dict[str, str] | None = None) -> Account:
    return Account(FakeStage("dev", iam=aws.client("iam", key), sts=aws.client("sts", key)))


def managed(aws: LocalAws, name: str, versions: int = 1, **members: Any) -> str:
    made = aws.iam.create_policy(PolicyName=name, Path="/team/", PolicyDocument=json.dumps(READS), **members)["Policy"]
    for number in range(2, versions + 1):
        document = json.dumps(policy({"Action": "ssm:GetParameter", "Resource": f"arn:aws:ssm:*:*:parameter/{number}"}))
        aws.iam.create_policy_version(PolicyArn=made["Arn"], PolicyDocument=document, SetAsDefault=number == 4)
    return str(made["Arn"])


def tags(**given: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in given.items()]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """An account with roles, policies and a user that are 100 days old; one role is used since, and one is new."""
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        iam, shared, role = made.iam, managed(made, "shared"), "arn:aws:iam::000000000000:role/team/used"
        managed(made, "idle", versions=5, Description="of a team", Tags=tags(team="vision"))
        for version in ("v1", "v2"):
            iam.delete_policy_version(PolicyArn="arn:aws:iam::000000000000:policy/team/idle", VersionId=version)
        for name in ("idle", "used", *KEPT):
            members = {"PermissionsBoundary": shared, "MaxSessionDuration": 7200} if name == "idle" else {}
            own = {"aws:cloudformation:stack-name": "s"} if name == "stack" else {}
            document = json.dumps(OWNER)
            iam.create_role(
                RoleName=name,
                AssumeRolePolicyDocument=document,
                Path="/team/",
                Tags=tags(b="2", a="1", **own),
                **members,
            )
            iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=json.dumps(READS))
            iam.attach_role_policy(RoleName=name, PolicyArn=shared)
        own = policy({"Principal": {"AWS": "arn:aws:iam::000000000000:role/team/self"}, "Action": "sts:AssumeRole"})
        iam.update_assume_role_policy(RoleName="self", PolicyDocument=json.dumps(own))
        iam.create_instance_profile(InstanceProfileName="profile")
        iam.add_role_to_instance_profile(InstanceProfileName="profile", RoleName="idle")
        caller = made.user("person", policy({"Action": "sts:AssumeRole", "Resource": role}))
        iam.create_login_profile(UserName="person", Password="a-Long-passw0rd")
        made.down()
        made.age(100)
        made.up()
        session = made.client("sts", caller).assume_role(RoleArn=role, RoleSessionName="session")["Credentials"]
        made.client("s3", session).list_buckets()
        made.role("new", OWNER, READS)
        yield made


@pytest.fixture(scope="module")
def report(aws: LocalAws) -> Report:
    return examine(account_of(aws), CHECKS)


def test_what_nobody_used_is_found_and_what_is_new_or_used_is_not(report: Report) -> None:
    found = {(finding.rule, finding.resource.rpartition("/")[2]) for finding in report.findings}
    idle_roles = {("role-unused", name) for name in ("idle", *KEPT)}
    signing_in = {("user-without-mfa", "person"), ("password-unused", "person")}
    assert found == idle_roles | signing_in | {("policy-unused", "idle"), ("permission-unused", "used")}
    assert report.not_checked == ()
    (narrowed,) = (finding.policy for finding in report.findings if finding.rule == "permission-unused")
    assert narrowed and {name for each in narrowed["Statement"] for name in each["Action"]} == {"s3:ListAllMyBuckets"}


def test_what_cannot_be_read_is_not_checked(aws: LocalAws) -> None:
    found = examine(
        account_of(aws, aws.user("nobody", policy({"Action": "ssm:GetParameter", "Resource": "*"}))), CHECKS
    )
    assert found.findings == ()
    assert {each.check for each in found.not_checked} == {check.__name__.replace("_", " ") for check in CHECKS}
    aws.iam.delete_user_policy(UserName="nobody", PolicyName="p")


def test_what_is_fixed_is_restored_exactly_and_once(aws: LocalAws, report: Report, tmp_path: Path) -> None:
    account, file = account_of(aws), tmp_path / "backup.json"
    backups, refusals = fixing.plan(account, report)
    arns = {kind: f"arn:aws:iam::000000000000:{kind}/team/idle" for kind in ("policy", "role")}
    assert {backup["arn"] for backup in backups} == set(arns.values())
    assert {refusal.split(": ")[0].rpartition("/")[2] for refusal in refusals} == set(KEPT)
    assert len(fixing.plan(account, report, named=KEPT)[0]) == 3  # the CDK's, too
    fixing.save(account, backups, file)
    with pytest.raises(UsageError, match="File exists"):
        fixing.save(account, backups, file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(fixing.delete(account, backups)) == set(arns.values())
    assert [fixing.read(account, arn) for arn in arns.values()] == [None, None]
    assert len(list(fixing.restore(account, fixing.load(account, file)))) > 2
    assert [fixing.read(account, backup["arn"]) for backup in backups] == backups
    assert list(fixing.restore(account, backups)) == []
    for content in (
        "no json",
        "[]",
        "{}",
        '{"account": "000000000000", "backups": [{}]}',
        '{"account": "1", "backups": []}',
    ):
        file.write_text(content)
        with pytest.raises(UsageError):
            fixing.load(account, file)


def test_what_cannot_be_deleted_stays_as_it_was_or_is_said(aws: LocalAws, report: Report) -> None:
    everything = {"Action": "iam:*", "Resource": "*"}

    def attempt(name: str, *denied: str) -> str:
        document = policy(everything, {"Effect": "Deny", "Action": list(denied), "Resource": "*"})
        account = account_of(aws, aws.user(name, document))
        with pytest.raises(WorkFailedError) as error:
            list(fixing.delete(account, backups))
        return str(error.value)

    account = account_of(aws)
    backups, _ = fixing.plan(account, report)
    assert "DeleteRole" in attempt("half", "iam:DeleteRole", "iam:DeletePolicy")
    role = next(backup for backup in backups if "inline" in backup)
    assert fixing.read(account, role["arn"]) == role
    assert "inline is missing" in attempt("stuck", "iam:DeleteRole", "iam:PutRolePolicy", "iam:DeletePolicy*")
    assert list(fixing.restore(account, backups)) == [f"{role['arn']}: inline"]
    aws.iam.delete_role_policy(RoleName="idle", PolicyName="inline")
    with pytest.raises(WorkFailedError, match=r"has changed since it was read\.$"):
        list(fixing.delete(account, [role]))
    aws.iam.update_assume_role_policy(RoleName="idle", PolicyDocument=json.dumps(trust("lambda.amazonaws.com")))
    with pytest.raises(WorkFailedError, match="another role of this name"):
        list(fixing.restore(account, [role]))
