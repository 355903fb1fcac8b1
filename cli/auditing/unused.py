"""Checks of what nobody has used for long: roles, users, passwords, access keys, permissions, policies; and of MFA."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cli.auditing.account import Account
from cli.auditing.findings import Finding, NotChecked, found
from cli.auditing.identities import documents_of, principals_of
from cli.auditing.usage import last_accessed, least_privilege
from cli.errors import AwsError
from cli.parallel import map_unordered

_FIX = "kennel audit --fix"


def _since(created: datetime, last: datetime | None) -> str:
    return f"created {created:%Y-%m-%d}, last used {f'{last:%Y-%m-%d}' if last else 'never, as far as AWS records it'}"


def unused_roles(account: Account) -> Iterator[Finding | NotChecked]:
    """Roles with which nobody has called AWS (RoleLastUsed)."""
    for kind, role in principals_of(account):
        if kind == "Role" and not account.is_recent(role["CreateDate"]):
            if "RoleLastUsed" not in role:  # empty when the role was never used
                yield NotChecked("unused roles", f"AWS does not say when {role['Arn']} was last used")
            elif not account.is_recent(last := role["RoleLastUsed"].get("LastUsedDate")):
                yield found("role-unused", role["Arn"], _since(role["CreateDate"], last), _FIX)


def unused_permissions(account: Account) -> Iterator[Finding | NotChecked]:
    """Services that a role or user in use may call, and has not called."""

    def ask(holder: tuple[str, dict[str, Any]]) -> AwsError | None:
        try:
            last_accessed(account, holder[1]["Arn"])
        except AwsError as error:
            return error
        return None

    holders = (each for each in principals_of(account) if each[0] != "Group")
    old = [each for each in holders if not account.is_recent(each[1]["CreateDate"])]
    failed = dict[str, AwsError]()
    for (kind, principal), error in map_unordered(ask, old, threads=8):  # IAM takes a second for each
        arn = principal["Arn"]
        if error:
            failed[arn] = error
            continue
        services = last_accessed(account, arn)
        idle = [name for name, service in services.items() if not account.is_recent(service.last)]
        if idle and len(idle) < len(services):  # else the principal itself is unused
            narrowed = least_privilege(account, arn, documents_of(account, kind, principal))
            fix = f"Replace its policies by one of what it uses{', such as the one below' if narrowed else ''}."
            yield found("permission-unused", arn, f"not used: {', '.join(idle)}", fix, narrowed)
    for arn in list(failed)[:1]:
        yield NotChecked("unused permissions", f"{len(failed)} users and roles, such as {arn}: {failed[arn]}")


def unused_policies(account: Account) -> Iterator[Finding]:
    """Customer-managed policies that are attached to nobody and bound nobody."""
    for policy in account.own_policies:
        uses = policy["AttachmentCount"] + policy["PermissionsBoundaryUsageCount"]
        if not uses and not account.is_recent(policy["UpdateDate"]):
            evidence = f"attached to nobody, last changed {policy['UpdateDate']:%Y-%m-%d}"
            yield found("policy-unused", policy["Arn"], evidence, _FIX)


def sign_in(account: Account) -> Iterator[Finding | NotChecked]:
    """Keys of the root user; users, passwords and keys that nobody uses; passwords without MFA."""
    if account.call("iam", "get_account_summary")["SummaryMap"].get("AccountAccessKeysPresent"):
        root = f"arn:{account.partition}:iam::{account.id}:root"
        yield found("root-key", root, "AccountAccessKeysPresent", "Sign in as root, and delete its access keys.")
    report = {row["arn"]: row for row in account.credential_report}
    for kind, user in principals_of(account):
        if kind == "User":
            yield from _user(account, user, report.get(user["Arn"], {}))


def _user(account: Account, user: dict[str, Any], row: dict[str, str]) -> Iterator[Finding | NotChecked]:
    arn, uses, name = user["Arn"], [], f"--user-name {user['UserName']}"
    for key in account.listed("iam", "list_access_keys", "AccessKeyMetadata", UserName=user["UserName"]):
        last_used = account.call("iam", "get_access_key_last_used", AccessKeyId=key["AccessKeyId"])["AccessKeyLastUsed"]
        uses.append(last := last_used.get("LastUsedDate"))
        if key["Status"] == "Active" and not any(map(account.is_recent, (last, key["CreateDate"]))):
            fix = f"aws iam update-access-key --status Inactive {name} --access-key-id {key['AccessKeyId']}"
            yield found("key-unused", arn, f"{key['AccessKeyId']}, {_since(key['CreateDate'], last)}", fix)
    if not row:
        yield NotChecked("sign in", f"the credential report, which may be four hours old, does not know {arn}")
    elif row["password_enabled"] == "true":  # noqa: S105 (no password)
        uses.append(last := _date(row["password_last_used"]))
        changed = _date(row["password_last_changed"]) or user["CreateDate"]
        if not any(map(account.is_recent, (last, changed))):
            fix = f"aws iam delete-login-profile {name}"
            yield found("password-unused", arn, f"password {_since(changed, last)}", fix)
        if row["mfa_active"] == "false":
            fix = f"aws iam enable-mfa-device {name} --serial-number …, or delete the password"
            yield found("user-without-mfa", arn, "password_enabled is true, mfa_active is false", fix)
    if row and not any(map(account.is_recent, (*uses, user["CreateDate"]))):
        evidence = _since(user["CreateDate"], max(filter(None, uses), default=None))
        yield found("user-unused", arn, evidence, f"aws iam delete-user {name}, after its keys and policies")


def _date(text: str) -> datetime | None:
    """Read a date of the credential report, which also says `N/A` or `no_information`."""
    return datetime.fromisoformat(text) if text[:1].isdigit() else None
