"""Checks of what policies allow, and those that allow less; cloudsplaining and policy-sentry know the actions."""

from __future__ import annotations

import json
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from cli.auditing.account import AWS, Account, Service
from cli.auditing.asking import once, tried
from cli.auditing.findings import Finding, found
from cli.auditing.rules import RULES
from cli.auditing.statements import Document, Statement, actions, broad_actions, known_actions, listed, statements
from cli.errors import AwsError
from infra.gate.statements import narrows

#: AWS's managed policies with which a principal can give itself everything.
_ADMIN = ("AdministratorAccess", "IAMFullAccess", "PowerUserAccess")
#: They give a token for what the caller may do anyway and know no resources, or tell of the instance that calls.
_OF_THE_CALLER = {"ecr:getauthorizationtoken", "ecr-public:getauthorizationtoken", "ssm:updateinstanceinformation"}
_LONGEST = 6144  # characters of a managed policy, without white space (IAM's quotas)
_EXPOSING = "Permissions management"  # an access level (service authorization reference)


class Policy(NamedTuple):
    """A policy, and the ARN of what has to be changed: a managed policy, or the principal that holds it."""

    owner: str
    name: str
    document: Document
    of_aws: str = ""  # its ARN


def flaws(document: Document) -> dict[str, list[str]]:
    """Return the rules that a document breaks, in one look at all its statements; its denials are taken off.

    With each rule go the actions that break it, or none: then it is all that its statements allow. A condition is no
    excuse for full access. Of the other flaws, only those without a condition on the resource are reported.
    """
    return dict(_flaws(json.dumps(document)))


@lru_cache(maxsize=8192)
def _flaws(text: str) -> dict[str, list[str]]:
    everything = statements(json.loads(text))
    denied = broad_actions(each for each in everything if each["Effect"] == "Deny" and not each.get("Condition"))
    allowing = [each for each in everything if each["Effect"] == "Allow"]
    if known_actions().keys() <= broad_actions(allowing) - denied:
        return {"policy-admin": []}
    inverted = [each for each in allowing if {"NotAction", "NotResource"} & each.keys()]
    named = broad_actions(each for each in allowing if each not in inverted) - denied
    results = {"policy-not-action": list[str]()} if inverted else {}
    if services := sorted(f"{service}:*" for service, its in _services().items() if its <= named):
        results["policy-service-wildcard"] = services
    dangerous = _dangerous(broad_actions(each for each in allowing if not narrows(each)) - denied)
    said = "policy-wildcard-resource" if results else ""
    return results | {rule: names for rule, names in dangerous.items() if names and rule != said}


@lru_cache(maxsize=1)
def _services() -> dict[str, set[str]]:
    """The actions of each service that knows resources."""
    found = defaultdict[str, set[str]](set)
    for action in known_actions():
        found[action.partition(":")[0]].add(action)
    return {service: its for service, its in found.items() if any(known_actions()[action].arns for action in its)}


@lru_cache(maxsize=256)
def _dangerous(allowed: frozenset[str]) -> dict[str, list[str]]:
    """Return what is wrong with allowing actions on every resource, by cloudsplaining's tables and AWS's levels."""
    from cloudsplaining.shared import constants  # on first use: with policy-sentry it takes 0.5 s

    ways = [way for way in constants.PRIVILEGE_ESCALATION_METHODS.values() if allowed.issuperset(way)]
    exfiltrating = {action.lower() for action in constants.READ_ONLY_DATA_EXFILTRATION_ACTIONS}
    known = [known_actions()[action] for action in sorted(allowed - _OF_THE_CALLER)]
    changing = [action for action in known if action.arns and action.level in ("Write", "Tagging", _EXPOSING)]
    return {
        "policy-escalation": sorted(" + ".join(known_actions()[action].name for action in way) for way in ways),
        "policy-exfiltration": [action.name for action in known if action.name.lower() in exfiltrating],
        "policy-exposure": [action.name for action in changing if action.level == _EXPOSING],
        "policy-credentials": [it.name for it in known if it.name.lower() in constants.ACTIONS_THAT_RETURN_CREDENTIALS],
        "policy-wildcard-resource": [action.name for action in changing],
    }


def documents_of(account: Account, kind: str, principal: dict[str, Any]) -> list[Document]:
    """Return the policies that a principal holds itself, inline and attached."""
    inline = [each["PolicyDocument"] for each in principal.get(f"{kind}PolicyList", [])]
    return inline + [account.documents.get(each["PolicyArn"], {}) for each in principal["AttachedManagedPolicies"]]


def policies(account: Account) -> Iterator[Policy]:
    """Yield every document that is somebody's to change, and those of AWS once for each principal that has them."""
    counted = tried(lambda: account.own_policies)
    own = () if isinstance(counted, AwsError) else counted  # the check of unused policies says so
    bounds = {it["Arn"] for it in own if it["PermissionsBoundaryUsageCount"] and not it["AttachmentCount"]}
    for arn, document in account.documents.items():
        if AWS not in arn and arn not in bounds:  # what only bounds others allows nothing
            yield Policy(arn, arn.rpartition("/")[2], document)
    for kind, principal in principals_of(account):
        for inline in principal.get(f"{kind}PolicyList", []):
            yield Policy(principal["Arn"], inline["PolicyName"], inline["PolicyDocument"])
        for attached in principal["AttachedManagedPolicies"]:
            if AWS in (arn := attached["PolicyArn"]):
                yield Policy(principal["Arn"], attached["PolicyName"], account.documents.get(arn, {}), arn)


def principals_of(account: Account) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kind (`User`, `Group`, `Role`) and description of everybody whom the account can change."""
    for kind in ("User", "Group", "Role"):
        for principal in account.authorization[f"{kind}DetailList"]:
            yield kind, principal


@once
def policy_rights(account: Account) -> list[Finding]:
    """Full access, escalation, exfiltration, exposure, credentials, and resources that could be named."""
    results = list[Finding]()
    for policy in policies(account):
        named = "policy-aws-admin" if policy.name in _ADMIN else "policy-aws-full-access"
        known = policy.of_aws and (policy.name in _ADMIN or "FullAccess" in policy.name)
        flawed = {named: list[str]()} if known else flaws(policy.document)
        if "/service-role/" in policy.of_aws:  # its resources are AWS's affair
            flawed.pop("policy-wildcard-resource", None)
        used = account.usage[policy.owner]
        used = {} if isinstance(used, AwsError) else used  # the check of unused permissions says so
        narrowed = least_privilege(account, used, [policy.document]) if flawed else None
        for rule, names in flawed.items():
            fix = f"{RULES[rule].fix}{' The policy below allows what was used.' if narrowed else ''}"
            results.append(found(rule, policy.owner, _evidence(policy, names), fix, narrowed))
    return results


def combined_rights(account: Account) -> Iterator[Finding]:
    """Escalation with actions that several policies of one principal, or of a user's groups, allow together."""
    for kind, principal in principals_of(account):
        documents = documents_of(account, kind, principal)
        for group in account.authorization["GroupDetailList"]:
            if group["GroupName"] in principal.get("GroupList", []):
                documents += documents_of(account, "Group", group)
        together = {"Statement": [each for document in documents for each in statements(document)]}
        each_alone = {path for document in documents for path in flaws(document).get("policy-escalation", [])}
        if paths := set(flaws(together).get("policy-escalation", [])) - each_alone:
            evidence = f"its policies together allow {', '.join(sorted(paths))}"
            yield found("policy-escalation", principal["Arn"], evidence)


def _evidence(policy: Policy, named: Sequence[str]) -> str:
    """Return some of the actions of a flaw, and the statement that allows most of them."""
    some = f" allows {', '.join(named[:5])}{', …' if named[5:] else ''}" if named else ""
    meant = actions({"Action": [action for way in named for action in way.split(" + ")] or "*"})
    allowing = [each for each in statements(policy.document) if each["Effect"] == "Allow"]
    worst = max(allowing, key=lambda each: len(meant & actions(each)), default={})
    return f"{policy.name}{some}: {textwrap.shorten(json.dumps(worst), 300, placeholder=' …')}"


def least_privilege(
    account: Account, services: Mapping[str, Service], documents: Iterable[Document]
) -> Document | None:
    """Return documents as one, with what was used of them, according to `account.usage` of who holds them.

    Left are the actions of used services, without those that IAM tracks and that nobody used. It tracks no access to
    data, such as s3:GetObject. Where a statement says `*`, policy-sentry knows the resources; others keep theirs.
    None: nothing was used, IAM does not know, or the document is longer than IAM takes.
    """
    used = {name: service.idle for name, service in services.items() if account.is_recent(service.last)}
    narrowed: list[Statement] = []
    for old in (each for document in documents for each in statements(document)):
        new = [old] if old["Effect"] == "Deny" else _narrow(account, old, used)
        narrowed += [each for each in new if each not in narrowed]
    document = {"Version": "2012-10-17", "Statement": narrowed}
    nothing = all(each["Effect"] == "Deny" for each in narrowed)
    return None if nothing or len(json.dumps(document, separators=(",", ":"))) > _LONGEST else document


def _narrow(account: Account, old: Statement, used: Mapping[str, frozenset[str]]) -> list[Statement]:
    """Return a statement without what was not used: `used` holds what was not of services that were."""
    rest: Statement = {name: old[name] for name in ("Effect", "Condition", "Resource", "NotResource") if name in old}
    places = {"Partition": account.partition, "Account": account.id}
    by_resources = defaultdict[tuple[str, ...], list[str]](list)
    for action in sorted(actions(old)):
        name, _, arns = known_actions().get(action, (action, "", ()))
        if action not in used.get(action.partition(":")[0], {action}):
            by_resources[arns if "*" in listed(old.get("Resource")) else ()].append(name)
    narrowed = []
    for arns, names in by_resources.items():
        own = [re.sub(r"\$\{(\w+)\}", lambda each: places.get(each[1], "*"), arn) for arn in arns]
        narrowed.append({**rest, "Action": names, **({"Resource": own} if own else {})})
    return narrowed
