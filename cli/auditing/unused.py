"""Checks of what nobody has used for long: roles, users, passwords, access keys, permissions, policies; and of MFA."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cli.auditing.account import Account
from cli.auditing.findings import Finding, NotChecked, found
from cli.auditing.identities import documents_of, least_privilege, principals_of
from cli.errors import AwsError


def _since(created: datetime, last: datetime | None) -> str:
    return f"created {created:%Y-%m-%d}, last used {f'{last:%Y-%m-%d}' if last else 'never, as far as AWS records it'}"


def unused_roles(account: Account) -> Iterator[Finding | NotChecked]:
    """Roles with which nobody has called AWS (RoleLastUsed)."""
    for kind, role in principals_of(account):
        if kind == "Role" and not account.is_recent(role["CreateDate"]):
            if "RoleLastUsed" not in role:  # empty when the role was never used
                yield NotChecked("unused roles", "AWS does not say when it was last used", (role["Arn"],))
            elif not account.is_recent(last := role["RoleLastUsed"].get("LastUsedDate")):
                yield found("role-unused", role["Arn"], _since(role["CreateDate"], last))


def unused_permissions(account: Account) -> Iterator[Finding | NotChecked]:
    """Services that a role or user in use may call, and has not called."""
    for arn, its in account.usage.items():  # of groups and policies, too: the fixes of other findings come from it
        if isinstance(its, AwsError):
            yield NotChecked("unused permissions", str(its), (arn,))
    for kind, principal in principals_of(account):
        services = account.usage[arn := principal["Arn"]]
        if kind == "Group" or account.is_recent(principal["CreateDate"]) or isinstance(services, AwsError):
            continue
        idle = [name for name, service in services.items() if not account.is_recent(service.last)]
        if idle and len(idle) < len(services):  # else the principal itself is unused
            narrowed = least_privilege(account, services, documents_of(account, kind, principal))
            fix = f"Replace its policies by one of what it uses{', such as the one below' if narrowed else ''}."
            yield found("permission-unused", arn, f"not used: {', '.join(idle)}", fix, narrowed)


def unused_policies(account: Account) -> Iterator[Finding]:
    """Customer-managed policies that are attached to nobody and bound nobody."""
    for policy in account.own_policies:
        uses = policy["AttachmentCount"] + policy["PermissionsBoundaryUsageCount"]
        if not uses and not account.is_recent(policy["UpdateDate"]):
            evidence = f"attached to nobody, last changed {policy['UpdateDate']:%Y-%m-%d}"
            yield found("policy-unused", policy["Arn"], evidence)


def sign_in(account: Account) -> Iterator[Finding | NotChecked]:
    """Keys of the root user; users, passwords and keys that nobody uses; passwords without MFA."""
    root, *users = account.credential_report
    if "true" in (root["access_key_1_active"], root["access_key_2_active"]):
        yield found("root-key", root["arn"], "an active access key")
    for row in users:
        yield from _user(account, row)
    if new := {user["Arn"] for user in account.authorization["UserDetailList"]} - {row["arn"] for row in users}:
        reason = "the credential report, which may be four hours old, does not know them"
        yield NotChecked("sign in", reason, tuple(sorted(new)))


def _user(account: Account, row: dict[str, str]) -> Iterator[Finding]:
    arn, name, created = row["arn"], f"--user-name {row['user']}", datetime.fromisoformat(row["user_creation_time"])
    update = f"aws iam list-access-keys {name}, then update-access-key {name} --status Inactive --access-key-id ID"
    uses = []
    for what, active, used, changed, fix in (
        ("password", "enabled", "last_used", "last_changed", f"aws iam delete-login-profile {name}"),
        ("access_key_1", "active", "last_used_date", "last_rotated", update),
        ("access_key_2", "active", "last_used_date", "last_rotated", update),
    ):
        last, made = _date(row[f"{what}_{used}"]), _date(row[f"{what}_{changed}"]) or created
        uses.append(last)
        if row[f"{what}_{active}"] == "true" and not any(map(account.is_recent, (last, made))):
            rule = "password-unused" if what == "password" else "key-unused"
            yield found(rule, arn, f"{what} {_since(made, last)}", fix)
    if (row["password_enabled"], row["mfa_active"]) == ("true", "false"):
        fix = f"aws iam enable-mfa-device {name} --serial-number …, or delete the password"
        yield found("user-without-mfa", arn, "password_enabled is true, mfa_active is false", fix)
    if not any(map(account.is_recent, (*uses, created))):
        evidence = _since(created, max(filter(None, uses), default=None))
        yield found("user-unused", arn, evidence, f"aws iam delete-user {name}, after its keys and policies")


def _date(text: str) -> datetime | None:
    """Read a date of the credential report, which also says `N/A` or `no_information`."""
    return datetime.fromisoformat(text) if text[:1].isdigit() else None
