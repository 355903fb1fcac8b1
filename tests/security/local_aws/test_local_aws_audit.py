"""The audit of identities on the local AWS: what is unused is found and deleted, and comes back as it was."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_stage import FakeStage
from local_aws_harness import LocalAws, policy, trust
from sagemaker_local import local_aws
from typer.testing import CliRunner

from cli import main
from cli.auditing import command, fixing
from cli.auditing.account import Account
from cli.auditing.findings import Report
from cli.auditing.unused import sign_in, unused_permissions, unused_policies, unused_roles
from cli.errors import UsageError, WorkFailedError

OWN = "000000000000"
IDENTITY = f"arn:aws:iam::{OWN}"
POLICY, SHARED = f"{IDENTITY}:policy/team/idle", f"{IDENTITY}:policy/team/shared"
ROLE, USED = f"{IDENTITY}:role/team/idle", f"{IDENTITY}:role/team/used"
READS = policy(
    {"Action": "s3:ListAllMyBuckets", "Resource": "*"},
    {"Action": "ssm:GetParameter", "Resource": "arn:aws:ssm:*:*:parameter/own"},
)
#: Roles that nobody used, and that are not deleted.
KEPT = ("cdk-hnb659fds-deploy-role", "stack", "gone")


def account_of(aws: LocalAws, key: dict[str, str] | None = None) -> Account:
    return Account(FakeStage("dev", iam=aws.client("iam", key), sts=aws.client("sts", key)))


def trusting(trusted: str) -> str:
    return json.dumps(policy({"Principal": {"AWS": trusted}, "Action": "sts:AssumeRole"}))


def make(iam: Any, name: str, trusted: str, **members: Any) -> None:
    """Make a role with tags and a part of each kind."""
    named = {"RoleName": name}
    iam.create_role(**named, Path="/team/", AssumeRolePolicyDocument=trusting(trusted), **members)
    iam.put_role_policy(**named, PolicyName="inline", PolicyDocument=json.dumps(READS))
    iam.attach_role_policy(**named, PolicyArn=SHARED)
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(**named, InstanceProfileName=name)


def lasting(backup: dict[str, Any]) -> list[str]:
    """All of a backup but the ids and dates that IAM gives, in an order of its own."""
    text = re.sub(r'"\w*(Id|Date)": "[^"]*"', "", json.dumps(backup, default=str))
    return sorted(re.split(r"[{}\[\], ]+", text))


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """An account with roles, policies and a user that are 100 days old; one role is used since, and one is new."""
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        iam, of_team = made.iam, {"Description": "of a team", "Tags": [{"Key": "team", "Value": "vision"}]}
        for name in ("idle", "shared"):
            iam.create_policy(PolicyName=name, Path="/team/", PolicyDocument=json.dumps(READS), **of_team)
        for number in (2, 3, 4):
            document = policy({"Action": "ssm:GetParameter", "Resource": f"arn:aws:ssm:*:*:parameter/{number}"})
            iam.create_policy_version(PolicyArn=POLICY, PolicyDocument=json.dumps(document), SetAsDefault=number == 3)
        make(iam, "idle", OWN, PermissionsBoundary=SHARED, MaxSessionDuration=7200, **of_team)
        make(iam, "idlefriend", ROLE)
        iam.update_assume_role_policy(RoleName="idle", PolicyDocument=trusting(f"{ROLE}friend"))
        make(iam, "used", OWN)
        make(iam, "cdk-hnb659fds-deploy-role", OWN)
        make(iam, "stack", OWN, Tags=[{"Key": "aws:cloudformation:stack-name", "Value": "s"}])
        make(iam, "gone", "AROAKSCDLFT9R5DQP782U")
        caller = made.user("person", policy({"Action": "sts:AssumeRole", "Resource": USED}))
        made.down()
        made.age(100)
        made.up()
        session = made.client("sts", caller).assume_role(RoleArn=USED, RoleSessionName="session")["Credentials"]
        made.client("s3", session).list_buckets()
        make(made.iam, "new", OWN)
        yield made


@pytest.fixture(scope="module")
def report(aws: LocalAws) -> Report:
    return command.assess(account_of(aws), [], (unused_roles, unused_permissions, unused_policies, sign_in))


def test_what_nobody_used_is_found_and_what_is_new_or_used_is_not(aws: LocalAws, report: Report) -> None:
    found = {(finding.rule, finding.resource) for finding in report.findings}
    idle = {("role-unused", f"{IDENTITY}:role/team/{name}") for name in ("idle", "idlefriend", *KEPT)}
    assert found == idle | {("policy-unused", POLICY), ("permission-unused", USED)}
    assert report.not_checked == ()
    (narrowed,) = (finding.policy for finding in report.findings if finding.policy)
    assert [each["Action"] for each in narrowed["Statement"]] == [["s3:ListAllMyBuckets"]]
    backups, refusals = fixing.plan(account_of(aws), report)
    assert {each["arn"] for each in backups} == {POLICY, ROLE, f"{ROLE}friend"}
    assert {each.split(": ")[0].rpartition("/")[2] for each in refusals} == {*KEPT}


class Killed(BaseException):
    """The end of the command, as SIGKILL brings it: nothing of it goes on."""


class Mortal(SimpleNamespace):
    """The client `iam` for so many changes (`left`) and no more."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("get_"):
            if not self.left:
                raise Killed
            self.left -= 1
        return getattr(self.iam, name)


@pytest.mark.parametrize("last_calls", [(3, 21), pytest.param(range(30), marks=pytest.mark.slow)])
def test_whatever_call_is_the_last_all_is_restored(last_calls: Iterable[int], aws: LocalAws, tmp_path: Path) -> None:
    account, file, arns = account_of(aws), tmp_path / "backup.json", [POLICY, ROLE, f"{ROLE}friend"]
    before = sorted(map(lasting, fixing.read(account, arns).values()))
    for left in last_calls:  # of the deletion's 14, then of the restoration's
        file.unlink(missing_ok=True)
        fixing.save(account, [*fixing.read(account, arns).values()], file)
        saved, mortal = fixing.load(account, file), account_of(aws)
        mortal.stage.__dict__["iam"] = Mortal(iam=aws.iam, left=left)
        with suppress(Killed):
            list(fixing.delete(mortal, fixing.read(account, arns).values()))
            list(fixing.restore(mortal, saved))
        roles = aws.iam.list_roles()["Roles"]
        gone = "|".join({ROLE, f"{ROLE}friend"} - {role["Arn"] for role in roles}) or "nobody"
        for role in roles:  # as AWS shows who is gone
            trusted = re.sub(f'"({gone})"', '"AROAKSCDLFT9R5DQP782U"', json.dumps(role["AssumeRolePolicyDocument"]))
            aws.iam.update_assume_role_policy(RoleName=role["RoleName"], PolicyDocument=trusted)
        list(fixing.restore(account, saved))
        assert sorted(map(lasting, fixing.read(account, arns).values())) == before, left
        assert list(fixing.restore(account, saved)) == []


def test_what_is_no_whole_backup_is_refused(aws: LocalAws, tmp_path: Path) -> None:
    account, file = account_of(aws), tmp_path / "backup.json"
    backups, limits = [*fixing.read(account, [POLICY, ROLE]).values()], resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # as a disk that is full
    with pytest.raises(UsageError, match="File too large"):
        fixing.save(account, backups, file)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    fixing.save(account, backups, file)  # the half of one is not in the way, a whole one is
    with pytest.raises(UsageError, match="File exists"):
        fixing.save(account, backups, file)
    assert file.stat().st_mode & 0o777 == 0o600
    whole = file.read_bytes()
    cut = [whole[:length] for length in range(0, len(whole) - 1, 97)]
    bent = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(0, len(whole), 29)]
    others = b"[]", b"[" * 100_000, b'{"account": "000000000000", "backups": [{}]}', b'{"account": "1", "backups": []}'
    for content in (*cut, *bent, *others):
        file.write_bytes(content)
        try:
            assert fixing.load(account, file) == json.loads(whole)["backups"]  # it was white space
        except UsageError as error:
            assert "backup" in str(error)


def test_another_of_the_same_name_stays_as_it_is(aws: LocalAws) -> None:
    account, iam, named = account_of(aws), aws.iam, {"RoleName": "idle"}
    backups = [*fixing.read(account, [ROLE]).values()]
    rights = {"Action": "iam:*", "Resource": "*"}, {"Action": "iam:DeleteRole", "Resource": "*", "Effect": "Deny"}
    with pytest.raises(WorkFailedError, match=f"{ROLE} is not deleted, or only half: .*DeleteRole"):
        list(fixing.delete(account_of(aws, aws.user("half", policy(*rights))), backups))
    with pytest.raises(WorkFailedError, match="has changed since it was read"):
        list(fixing.delete(account, backups))
    trusted = {"AssumeRolePolicyDocument": json.dumps(trust("lambda.amazonaws.com"))}
    for path in ("/other/", "/team/"):
        iam.delete_role(**named)
        iam.create_role(**named, **trusted, Path=path)
        other = fixing.read(account, [arn := f"{IDENTITY}:role{path}idle"])
        with pytest.raises(WorkFailedError, match=r"another of the same name|EntityAlreadyExists"):
            list(fixing.restore(account, backups))
        assert fixing.read(account, [arn]) == other
    iam.delete_role(**named)
    list(fixing.restore(account, backups))


def test_the_command_deletes_when_agreed_to_and_brings_back(
    aws: LocalAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {**aws.environment, "KENNEL_STAGE": "local"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(command, "Account", partial(Account, now=datetime.now(UTC) + timedelta(200)))
    backup, there = f"--backup={tmp_path / 'backup.json'}", fixing.read(account_of(aws), [POLICY])
    for arguments, answer, said, left in (
        (["--fix", backup], "n\n", f"can be deleted: {POLICY}", there),
        (["--fix", backup], "y\n", f"deleted: {POLICY}", {}),
        ([backup.replace("backup", "restore", 1)], "", f"restored: {POLICY}", there),
    ):
        result = CliRunner().invoke(main.app, ["audit", "--region", "us-east-1", *arguments], input=answer)
        assert said in result.output
        assert fixing.read(account_of(aws), [POLICY]).keys() == left.keys()
