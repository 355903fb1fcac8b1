"""`kennel audit --fix` and `--restore`: delete roles and policies that nobody uses, and bring them back."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cli.auditing.account import Account
from cli.auditing.findings import Report
from cli.errors import AwsError, UsageError, WorkFailedError

#: A role or policy: its `arn`, and what GetAccountAuthorizationDetails and GetRole or GetPolicy say of it.
Backup = dict[str, Any]
Request = tuple[str, dict[str, Any]]  # an operation of IAM and its parameters
_RULES = ("role-unused", "policy-unused")
#: The order of a restore: trust policies may name roles of the same backup.
_ORDER = ("create_policy", "create_policy_version", "create_role", "update_assume_role_policy")
#: Whom a role trusts until its trust policy is restored.
_NOBODY = {"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
_ID = '"A(RO|ID)A[A-Z0-9]{12,}"'  # of a principal that is gone, where AWS shows its ARN otherwise
_CLOSED = {"Version": "2012-10-17", "Statement": [_NOBODY]}


def plan(account: Account, report: Report) -> tuple[list[Backup], list[str]]:
    """Return what can be deleted of what a report found unused, as it is now, and why the rest stays."""
    backups, refusals = list[Backup](), list[str]()
    for backup in read(account, [each.resource for each in report.findings if each.rule in _RULES]).values():
        if reason := _protected(account, backup):
            refusals.append(f"{backup['arn']}: {reason}")
        else:
            backups.append(backup)
    return backups, refusals


def read(account: Account, arns: Collection[str]) -> dict[str, Backup]:
    """Return roles and policies as they are now, by ARN, without those that are gone."""
    now, backups = replace(account, known={}), dict[str, Backup]()  # a copy that asks AWS anew
    for thing in (*now.authorization["RoleDetailList"], *now.authorization["Policies"]):
        if (arn := thing["Arn"]) in arns:
            if ":role/" in arn:
                answer = account.call("iam", "get_role", missing={}, RoleName=thing["RoleName"]).get("Role")
            else:
                answer = account.call("iam", "get_policy", missing={}, PolicyArn=arn).get("Policy")
            if answer:
                tags = sorted(answer.get("Tags", []), key=lambda tag: str(tag["Key"]))
                backups[arn] = {**thing, **answer, "arn": arn, "Tags": tags}
    return backups


def _protected(account: Account, backup: Backup) -> str:
    """Return why a role or policy must not be deleted, if there is a reason."""
    closed = {it["Arn"] for it in account.authorization["Policies"] if not it.get("IsAttachable", True)}
    name, last, trust = backup.get("RoleName", ""), backup.get("RoleLastUsed"), backup.get("AssumeRolePolicyDocument")
    reasons = {
        "AWS made it, such as CloudFormation: delete it there": any(
            it["Key"].startswith("aws:") for it in backup["Tags"]
        ),
        "it is new": account.is_recent(backup.get("UpdateDate", backup["CreateDate"])),
        "it is attached": backup.get("AttachmentCount"),
        "it bounds somebody": backup.get("PermissionsBoundaryUsageCount"),
        "AWS does not say when it was last used": name and last is None,
        "it has been used": last and account.is_recent(last.get("LastUsedDate")),
        "it is a role of the CDK's bootstrapping": name.startswith("cdk-"),
        "it is the role of this very command": f"/{name}/" in account.identity["Arn"],
        "AWS would not attach one of its policies again, which AWS has withdrawn": closed.intersection(
            each["PolicyArn"] for each in backup.get("AttachedManagedPolicies", [])
        ),
        "AWS would not make it again: it trusts who is gone": re.search(_ID, json.dumps(trust)),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _requests(backup: Backup) -> Iterator[tuple[Request, Request | None]]:
    """Yield what makes a role or policy, and what deletes that again, each part behind what it is a part of."""
    shared: dict[str, Any] = {name: backup[name] for name in ("Path", "Description", "Tags") if name in backup}
    if "RoleName" in backup:
        named, trust = {"RoleName": backup["RoleName"]}, backup["AssumeRolePolicyDocument"]
        shared["MaxSessionDuration"] = backup["MaxSessionDuration"]
        if bound := backup.get("PermissionsBoundary"):
            shared["PermissionsBoundary"] = bound["PermissionsBoundaryArn"]
        role = {**named, **shared, "AssumeRolePolicyDocument": json.dumps(_CLOSED)}
        yield ("create_role", role), ("delete_role", named)
        if trust != _CLOSED:
            yield ("update_assume_role_policy", {**named, "PolicyDocument": json.dumps(trust)}), None
        for each in backup["RolePolicyList"]:
            part = {**named, "PolicyName": each["PolicyName"]}
            put = {**part, "PolicyDocument": json.dumps(each["PolicyDocument"])}
            yield ("put_role_policy", put), ("delete_role_policy", part)
        for each in backup["AttachedManagedPolicies"]:
            part = {**named, "PolicyArn": each["PolicyArn"]}
            yield ("attach_role_policy", part), ("detach_role_policy", part)
        for each in backup["InstanceProfileList"]:
            part = {**named, "InstanceProfileName": each["InstanceProfileName"]}
            yield ("add_role_to_instance_profile", part), ("remove_role_from_instance_profile", part)
        return
    named = {"PolicyArn": backup["arn"]}
    # The version in force first: then no other is to become it.
    for each in sorted(
        backup["PolicyVersionList"], key=lambda it: (not it["IsDefaultVersion"], int(it["VersionId"][1:]))
    ):
        document = {"PolicyDocument": json.dumps(each["Document"])}
        if each["IsDefaultVersion"]:
            policy = {"PolicyName": backup["PolicyName"], **shared, **document}
            yield ("create_policy", policy), ("delete_policy", named)
        else:
            part = {**named, "VersionId": each["VersionId"]}
            yield ("create_policy_version", {**named, **document}), ("delete_policy_version", part)


def _digest(backups: list[Backup]) -> str:
    return hashlib.sha256(json.dumps(backups, default=str).encode()).hexdigest()


def save(account: Account, backups: list[Backup], path: Path) -> None:
    """Write backups to a new file that only its owner can read, and wait until the disk has it."""
    content = {"account": account.id, "sha256": _digest(backups), "backups": backups}
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(content, indent=2, default=str))
                file.flush()
                os.fsync(descriptor)
        except OSError:
            path.unlink()  # the half of a backup
            raise
    except OSError as error:
        raise UsageError(f"The backup cannot be written to {path} as a new file: {error.strerror}.") from error


def load(account: Account, path: Path) -> list[Backup]:
    """Read the backups of this account from a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        owner, backups = content["account"], list(content["backups"])
        for backup in backups:
            list(_requests(backup))
        if content.get("sha256", digest := _digest(backups)) != digest:  # older backups have none
            raise ValueError("it is damaged, or was changed")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} is not a backup of kennel audit --fix: {error!r}.") from error
    if owner != account.id:
        raise UsageError(f"{path} is a backup of account {owner}; the credentials are of account {account.id}.")
    return backups


def delete(account: Account, backups: Collection[Backup]) -> Iterator[str]:
    """Delete what is still as its backup says, one after the other, and yield each ARN that is gone.

    A WorkFailedError at the end says what is not deleted, or only half.
    """
    now = read(account, [backup["arn"] for backup in backups])
    failures = []
    for backup in backups:
        if now.get(arn := backup["arn"]) != backup:
            failures.append(f"{arn} stays: it has changed since it was read")
            continue
        try:
            for operation, request in filter(None, reversed([undo for _, undo in _requests(backup)])):
                account.call("iam", operation, missing={}, **request)
            yield arn
        except AwsError as error:
            failures.append(f"{arn} is not deleted, or only half: {error}")
    if failures:
        hint = "What is deleted half is brought back by kennel audit --restore FILE, with the backup."
        raise WorkFailedError("\n".join(failures), hint)


def _shows_ids(there: Request, wanted: Request) -> bool:
    """Whether a trust policy differs from what is wanted only because whom it trusts has been deleted since."""
    if there == wanted or {there[0], wanted[0]} != {"update_assume_role_policy"}:
        return False
    pattern = re.sub(_ID, '"arn:[^"]+"', re.escape(there[1]["PolicyDocument"]))
    return re.fullmatch(pattern, wanted[1]["PolicyDocument"]) is not None


def restore(account: Account, backups: Collection[Backup]) -> Iterator[str]:
    """Make what is missing of backups, and yield each ARN with what was done; what is there stays as it is.

    A WorkFailedError at the end says what is still missing.
    """
    now = read(account, [backup["arn"] for backup in backups])
    missing, failures = list[tuple[str, Request]](), list[str]()
    for backup in backups:
        wanted = [make for make, _ in _requests(backup)]
        there = [make for make, _ in _requests(now[backup["arn"]])] if backup["arn"] in now else []
        try:
            for make in there:
                if not any(_shows_ids(make, each) for each in wanted):
                    wanted.remove(make)  # one: two versions may be the same
            missing += [(backup["arn"], make) for make in wanted]
        except ValueError:
            failures.append(f"{backup['arn']} stays: it has changed since, or is another of the same name")
    unmade = set[str]()
    for arn, (operation, request) in sorted(missing, key=lambda it: [*_ORDER, it[1][0]].index(it[1][0])):
        if arn not in unmade:  # else its parts would go to another of the same name
            try:
                account.call("iam", operation, **request)
                yield f"{arn}: {operation}"
            except AwsError as error:
                failures.append(f"{arn}: {error}")
                unmade |= {arn} if operation in ("create_role", "create_policy") else set()
    if failures:
        raise WorkFailedError("\n".join(failures), "The command can be repeated: it makes what is missing.")
