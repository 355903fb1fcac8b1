"""`kennel audit --fix` and `--restore`: delete roles and policies that nobody uses, and bring them back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from cli.auditing.account import Account
from cli.auditing.findings import Report
from cli.auditing.identities import AWS_PATHS
from cli.auditing.statements import principals, statements
from cli.errors import AwsError, UsageError, WorkFailedError

#: A role or policy as it was: what CreateRole or CreatePolicy takes, and its parts.
Backup = dict[str, Any]
#: The parts of a role: which operation adds one, which takes it away, and the parameters of each.
_PARTS = {
    "attached": ("attach_role_policy", "detach_role_policy", "PolicyArn", None),
    "inline": ("put_role_policy", "delete_role_policy", "PolicyName", "PolicyDocument"),
    "profiles": ("add_role_to_instance_profile", "remove_role_from_instance_profile", "InstanceProfileName", None),
}
_FIXABLE = ("role-unused", "policy-unused")


def plan(account: Account, report: Report, named: Collection[str] = ()) -> tuple[list[Backup], list[str]]:
    """Return what can be deleted of what a report found unused, as it is now, and why the rest is left alone.

    `named` are roles of the CDK's bootstrapping (`cdk-…`) that may go, too.
    """
    backups, refusals = list[Backup](), list[str]()
    for arn in (finding.resource for finding in report.findings if finding.rule in _FIXABLE):
        try:
            if (now := read(account, arn)) is None:
                continue
            if reason := _protected(account, now, named):
                refusals.append(f"{arn}: {reason}")
            else:
                backups.append(now)
        except AwsError as error:  # what cannot be read cannot be restored
            refusals.append(f"{arn}: {error}")
    return backups, refusals


def _protected(account: Account, backup: Backup, named: Collection[str]) -> str:
    name, path = backup["arn"].rpartition("/")[2], backup["create"]["Path"]
    if path.startswith(AWS_PATHS):
        return "it is a role of a service of AWS"
    if any(tag["Key"].startswith("aws:") for tag in backup["create"]["Tags"]):
        return "its tags say that AWS made it, such as CloudFormation: delete it there"
    if f"/{name}/" in account.identity["Arn"]:
        return "it is the role of this very command"
    trust = json.loads(backup["create"].get("AssumeRolePolicyDocument", "{}"))
    trusted = {who for statement in statements(trust) for who in principals(statement)}
    if any(who == backup["arn"] or re.fullmatch("A[A-Z]{3}[A-Z0-9]{12,}", who) for who in trusted):
        return "it trusts itself or a principal that is gone, and AWS would refuse to create it so again"
    if name.startswith("cdk-") and name not in named and ":role/" in backup["arn"]:
        return "it is a role of the CDK's bootstrapping; name it if it shall go"
    return backup["in_use"]


def read(account: Account, arn: str) -> Backup | None:
    """Return a role or policy with all its parts, and what speaks against deleting it; None if it is gone."""
    return _read_role(account, arn) if ":role/" in arn else _read_policy(account, arn)


def _read_role(account: Account, arn: str) -> Backup | None:
    named = {"RoleName": arn.rpartition("/")[2]}
    if not (answer := account.call("iam", "get_role", missing={}, **named)):
        return None
    role = answer["Role"]
    last, bound = role.get("RoleLastUsed"), role.get("PermissionsBoundary")
    used = "AWS does not say when it was last used" if last is None else "it has been used"
    names = account.listed("iam", "list_role_policies", "PolicyNames", **named)
    document = {name: account.call("iam", "get_role_policy", PolicyName=name, **named) for name in names}
    attached = account.listed("iam", "list_attached_role_policies", "AttachedPolicies", **named)
    profiles = account.listed("iam", "list_instance_profiles_for_role", "InstanceProfiles", **named)
    return {
        "arn": role["Arn"],
        "in_use": used if last is None or account.is_recent(last.get("LastUsedDate")) else "",
        "create": {
            **named,
            "Path": role["Path"],
            "AssumeRolePolicyDocument": json.dumps(role["AssumeRolePolicyDocument"]),
            "MaxSessionDuration": role["MaxSessionDuration"],
            "Tags": _tags(account, "list_role_tags", **named),
            **({"Description": role["Description"]} if role.get("Description") else {}),
            **({"PermissionsBoundary": bound["PermissionsBoundaryArn"]} if bound else {}),
        },
        "attached": {each["PolicyArn"]: "" for each in attached},
        "inline": {name: json.dumps(each["PolicyDocument"]) for name, each in document.items()},
        "profiles": {each["InstanceProfileName"]: "" for each in profiles},
    }


def _read_policy(account: Account, arn: str) -> Backup | None:
    named = {"PolicyArn": arn}
    if not (answer := account.call("iam", "get_policy", missing={}, **named)):
        return None
    policy = answer["Policy"]
    versions = [each["VersionId"] for each in account.listed("iam", "list_policy_versions", "Versions", **named)]
    versions.sort(key=lambda version: int(version.removeprefix("v")))
    get = (account.call("iam", "get_policy_version", VersionId=version, **named) for version in versions)
    return {
        "arn": arn,
        "in_use": "it is attached" if policy["AttachmentCount"] + policy["PermissionsBoundaryUsageCount"] else "",
        "create": {
            "PolicyName": policy["PolicyName"],
            "Path": policy["Path"],
            "Tags": _tags(account, "list_policy_tags", **named),
            **({"Description": policy["Description"]} if policy.get("Description") else {}),
        },
        "default": versions.index(policy["DefaultVersionId"]),
        "versions": [json.dumps(each["PolicyVersion"]["Document"]) for each in get],
    }


def _tags(account: Account, operation: str, **named: str) -> list[dict[str, str]]:
    return sorted(account.listed("iam", operation, "Tags", **named), key=lambda tag: str(tag["Key"]))


def save(account: Account, backups: list[Backup], path: Path) -> None:
    """Write backups to a new file that only its owner can read."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"The backup cannot be written to {path} as a new file: {error.strerror}.") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"account": account.id, "backups": backups}, file, indent=2)


def delete(account: Account, backups: Iterable[Backup]) -> Iterator[str]:
    """Delete what backups say, one after the other, and yield each ARN that is gone.

    What is not any more as its backup says is left alone, and what cannot be deleted completely is restored. A
    WorkFailedError at the end says of each what has become of it.
    """
    failures = []
    for backup in backups:
        begun = False
        try:
            if read(account, backup["arn"]) != backup:
                raise AwsError("It has changed since it was read.")
            begun = True
            _delete(account, backup)
            yield backup["arn"]
        except AwsError as error:
            undone = _undo(account, backup) if begun else ""
            failures.append(f"{backup['arn']} is not deleted: {error}{undone}")
    if failures:
        raise WorkFailedError("\n".join(failures))


def _undo(account: Account, backup: Backup) -> str:
    """Restore what was deleted half, and return what is different from before."""
    try:
        changes = list(restore(account, [backup]))
        return "".join(f"\n  put back: {change}" for change in changes)
    except (AwsError, WorkFailedError) as error:
        return f"\n  and not put back: {error}"


def _delete(account: Account, backup: Backup) -> None:
    if "versions" in backup:
        for version in account.listed("iam", "list_policy_versions", "Versions", PolicyArn=backup["arn"]):
            if not version["IsDefaultVersion"]:
                account.call("iam", "delete_policy_version", PolicyArn=backup["arn"], VersionId=version["VersionId"])
        account.call("iam", "delete_policy", PolicyArn=backup["arn"])
        return
    named = {"RoleName": backup["create"]["RoleName"]}
    for part, (_, take, parameter, _) in _PARTS.items():
        for name in backup[part]:
            account.call("iam", take, **named, **{parameter: name})
    account.call("iam", "delete_role", **named)


def load(account: Account, path: Path) -> list[Backup]:
    """Read the file that `save` has written of this account."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        of, backups = saved["account"], [{"arn": each["arn"], **each} for each in saved["backups"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is no backup of kennel audit --fix: {error!r}") from error
    if of != account.id:
        raise UsageError(f"{path} is a backup of account {of}, the credentials are of {account.id}.")
    return backups


def restore(account: Account, backups: Iterable[Backup]) -> Iterator[str]:
    """Create what is missing of backups, and yield it; what is there already stays as it is.

    A WorkFailedError at the end says what could not be created.
    """
    left = sorted(backups, key=lambda backup: ":role/" in backup["arn"])  # roles have policies, and trust other roles
    failures, before = dict[str, AwsError](), None
    while left and len(left) != before:
        before, failures = len(left), {}
        for backup in left:
            try:
                yield from (_restore_role if ":role/" in backup["arn"] else _restore_policy)(account, backup)
            except AwsError as error:
                failures[backup["arn"]] = error
        left = [backup for backup in left if backup["arn"] in failures]
    if failures:
        raise WorkFailedError("\n".join(f"{arn} is not as it was: {error}" for arn, error in failures.items()))


def _restore_role(account: Account, backup: Backup) -> Iterator[str]:
    named, missing = {"RoleName": backup["create"]["RoleName"]}, []
    if (now := read(account, backup["arn"])) is None:
        account.call("iam", "create_role", **backup["create"])
        yield backup["arn"]
        now = {**backup, **{part: {} for part in _PARTS}}
    parts = [(part, name, document) for part in _PARTS for name, document in backup[part].items()]
    if now["create"] != backup["create"] or any(now[part].get(name, its) != its for part, name, its in parts):
        raise AwsError("There is another role of this name now, with other trust, tags, path or policies.")
    for part, name, document in parts:
        if name not in now[part]:
            add, _, parameter, content = _PARTS[part]
            try:
                account.call("iam", add, **named, **{parameter: name}, **({content: document} if content else {}))
                yield f"{backup['arn']}: {name}"
            except AwsError as error:
                missing.append(f"{name} is missing ({error})")
    if missing:
        raise AwsError("; ".join(missing))


def _restore_policy(account: Account, backup: Backup) -> Iterator[str]:
    arn, versions, default = backup["arn"], backup["versions"], backup["default"]
    if (now := read(account, arn)) is None:
        account.call("iam", "create_policy", **backup["create"], PolicyDocument=versions[0])
        yield arn
        now = {**backup, "versions": versions[:1], "default": 0}
    there, in_force = list(now["versions"]), now["versions"][now["default"]]
    changed = versions[default] in there and in_force != versions[default]
    if changed or now["create"] != backup["create"] or not set(there) <= set(versions):
        raise AwsError("There is another policy of this name now, with other tags, path or versions.")
    for number, document in enumerate(versions):
        if document in there:
            there.remove(document)
            continue
        request = {"PolicyArn": arn, "PolicyDocument": document, "SetAsDefault": number == default}
        made = account.call("iam", "create_policy_version", **request)["PolicyVersion"]["VersionId"]
        yield f"{arn}: {made}"
