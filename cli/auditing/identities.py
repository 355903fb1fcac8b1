"""Checks of what policies allow; cloudsplaining and policy-sentry know the dangerous actions."""

from __future__ import annotations

import json
import logging
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from cli.auditing.account import Account
from cli.auditing.findings import Finding, found
from cli.auditing.statements import Document, Statement, actions, broad_actions, every_action, statements
from cli.auditing.usage import least_privilege
from cli.errors import AwsError

#: AWS's own roles: service-linked ones, and those of IAM Identity Center. Nobody can change them.
AWS_PATHS = ("/aws-service-role/", "/aws-reserved/")
_AWS = ":iam::aws:"  # in the ARN of a policy that AWS manages
#: AWS's managed policies with which a principal can give itself everything.
_ADMIN = ("AdministratorAccess", "IAMFullAccess", "PowerUserAccess")
_NARROW = "Replace it by a policy that names actions and resources"
_FIXES = {
    "policy-escalation": "Take away one of the actions, or name the roles, users or functions that it may be used on",
    "policy-exfiltration": "Name the buckets, parameters or secrets",
    "policy-exposure": "Take the actions away, or name the resources",
    "policy-credentials": "Take the actions away, or name the roles or users",
    "policy-wildcard-resource": "Name the resources",
}
#: They give a token for what the caller may do anyway and know no resources, or tell of the instance that calls.
_OF_THE_CALLER = ["ecr:GetAuthorizationToken", "ecr-public:GetAuthorizationToken", "ssm:UpdateInstanceInformation"]


class Flaw(NamedTuple):
    """A rule that a document breaks, and by which actions, if not by all that its statements allow."""

    rule: str
    actions: tuple[str, ...] = ()


class Policy(NamedTuple):
    """A policy, and the ARN of what has to be changed: a managed policy, or the principal that holds it."""

    owner: str
    name: str
    document: Document
    of_aws: bool = False


def flaws(document: Document) -> Iterator[Flaw]:
    """Yield what is wrong with a document, in one look at all its statements; its denials are taken off.

    A condition is no excuse for full access. Of the other flaws, only those without a condition are reported.
    """
    denied = _union(each for each in statements(document) if each["Effect"] == "Deny" and not each.get("Condition"))
    allowing = [each for each in statements(document) if each["Effect"] == "Allow"]
    if every_action() <= _union(allowing) - denied:
        yield Flaw("policy-admin")
        return
    if inverted := [each for each in allowing if {"NotAction", "NotResource"} & each.keys()]:
        yield Flaw("policy-not-action")
    named = _union(each for each in allowing if each not in inverted) - denied
    if services := [f"{service}:*" for service, its in _services().items() if its <= named]:
        yield Flaw("policy-service-wildcard", tuple(sorted(services)))
    for flaw in _dangerous(_union(each for each in allowing if not each.get("Condition")) - denied):
        if flaw.rule != "policy-wildcard-resource" or not (inverted or services):  # which say it already
            yield flaw


def _union(chosen: Iterable[Statement]) -> frozenset[str]:
    return frozenset[str]().union(*map(broad_actions, chosen))


@lru_cache(maxsize=1)
def _services() -> dict[str, set[str]]:
    """The actions of each service that knows resources."""
    from policy_sentry.querying.actions import get_actions_that_support_wildcard_arns_only

    found = defaultdict[str, set[str]](set)
    for action in every_action():
        found[action.partition(":")[0]].add(action)
    only_star = get_actions_that_support_wildcard_arns_only
    return {service: its for service, its in found.items() if len(its) > len(only_star(service))}


@lru_cache(maxsize=256)
def _dangerous(allowed: frozenset[str]) -> tuple[Flaw, ...]:
    """Return what cloudsplaining finds wrong with allowing actions on every resource, without a condition."""
    from cloudsplaining.scan.policy_document import PolicyDocument
    from cloudsplaining.shared.exclusions import Exclusions

    logging.getLogger("cloudsplaining").handlers.clear()  # it logs to standard output, which is the report's
    statement = {"Effect": "Allow", "Action": sorted(allowed), "Resource": "*"}
    read = PolicyDocument(
        {"Statement": [statement] if allowed else []}, Exclusions({"exclude-actions": _OF_THE_CALLER})
    )
    escalations = (" + ".join(path["actions"]) for path in read.allows_privilege_escalation)
    results = {
        "policy-escalation": escalations,
        "policy-exfiltration": read.allows_data_exfiltration_actions,
        "policy-exposure": read.permissions_management_without_constraints,
        "policy-credentials": read.credentials_exposure,
        "policy-wildcard-resource": read.infrastructure_modification,
    }
    flaws = (Flaw(rule, tuple(sorted(set(names)))) for rule, names in results.items())
    return tuple(flaw for flaw in flaws if flaw.actions)


def _managed(account: Account) -> dict[str, Document]:
    """Return the documents in force of the account's managed policies, and of AWS's that are attached, by ARN."""
    return {
        policy["Arn"]: version["Document"]
        for policy in account.authorization["Policies"]
        for version in policy["PolicyVersionList"]
        if version["IsDefaultVersion"]
    }


def documents_of(account: Account, kind: str, principal: dict[str, Any]) -> list[Document]:
    """Return the policies that a principal holds itself, inline and attached."""
    inline = [each["PolicyDocument"] for each in principal.get(f"{kind}PolicyList", [])]
    managed = _managed(account)
    return inline + [managed.get(each["PolicyArn"], {}) for each in principal["AttachedManagedPolicies"]]


def policies(account: Account) -> Iterator[Policy]:
    """Yield every document that is somebody's to change, and those of AWS once for each principal that has them."""
    managed = _managed(account)
    unattached = {
        each["Arn"]: each["PermissionsBoundaryUsageCount"]
        for each in account.own_policies
        if not each["AttachmentCount"]
    }
    for arn, document in managed.items():
        if _AWS not in arn and not unattached.get(arn):  # what only bounds others allows nothing
            yield Policy(arn, arn.rpartition("/")[2], document)
    for kind, principal in principals_of(account):
        for inline in principal.get(f"{kind}PolicyList", []):
            yield Policy(principal["Arn"], inline["PolicyName"], inline["PolicyDocument"])
        for attached in principal["AttachedManagedPolicies"]:
            if _AWS in (arn := attached["PolicyArn"]) and "/service-role/" not in arn:
                yield Policy(principal["Arn"], attached["PolicyName"], managed.get(arn, {}), of_aws=True)


def principals_of(account: Account) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kind (`User`, `Group`, `Role`) and description of everybody whom the account can change."""
    for kind in ("User", "Group", "Role"):
        for principal in account.authorization[f"{kind}DetailList"]:
            if not principal["Path"].startswith(AWS_PATHS):
                yield kind, principal


def policy_rights(account: Account) -> Iterator[Finding]:
    """Full access, escalation, exfiltration, exposure, credentials, and resources that could be named."""
    for policy in policies(account):
        named = "policy-aws-admin" if policy.name in _ADMIN else "policy-aws-full-access"
        known = policy.of_aws and (policy.name in _ADMIN or "FullAccess" in policy.name)
        flawed, narrowed = [Flaw(named)] if known else list(flaws(policy.document)), None
        with suppress(AwsError):  # what was used cannot be read: the check of unused permissions says so
            narrowed = least_privilege(account, policy.owner, [policy.document]) if flawed else None
        for flaw in flawed:
            fix = f"{_FIXES.get(flaw.rule, _NARROW)}{', such as the one below, of what was used' if narrowed else ''}."
            yield found(flaw.rule, policy.owner, _evidence(policy, flaw), fix, narrowed)


def combined_rights(account: Account) -> Iterator[Finding]:
    """Escalation with actions that several policies of one principal, or of a user's groups, allow together."""
    groups = {each["GroupName"]: each for each in account.authorization["GroupDetailList"]}
    for kind, principal in principals_of(account):
        documents = documents_of(account, kind, principal)
        for group in principal.get("GroupList", []):
            documents += documents_of(account, "Group", groups[group])
        together = {"Statement": [each for document in documents for each in statements(document)]}
        if paths := _escalations(together) - {path for document in documents for path in _escalations(document)}:
            evidence = f"its policies together allow {', '.join(sorted(paths))}"
            yield found("policy-escalation", principal["Arn"], evidence, f"{_FIXES['policy-escalation']}.")


def _escalations(document: Document) -> set[str]:
    return {path for flaw in flaws(document) if flaw.rule == "policy-escalation" for path in flaw.actions}


def _evidence(policy: Policy, flaw: Flaw) -> str:
    """Return some of the actions of a flaw, and the statement that allows most of them."""
    some = f" allows {', '.join(flaw.actions[:5])}{', …' if flaw.actions[5:] else ''}" if flaw.actions else ""
    meant = actions({"Action": [name for path in flaw.actions for name in path.split(" + ")] or "*"})
    allowing = [each for each in statements(policy.document) if each["Effect"] == "Allow"]
    worst = max(allowing, key=lambda each: len(meant & actions(each)), default={})
    return f"{policy.name}{some}: {textwrap.shorten(json.dumps(worst), 300, placeholder=' …')}"
