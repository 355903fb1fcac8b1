"""What a principal has used of what it may do, as IAM reports it, and the policy that allows no more than that."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from cli.auditing.account import Account
from cli.auditing.statements import Document, Statement, actions, listed, spellings, statements
from cli.errors import AwsError

_LONGEST = 6144  # characters of a managed policy (IAM's quotas)


class Service(NamedTuple):
    """A service that a principal may use: when it last did, if ever, and which actions it has not, that IAM tracks."""

    last: datetime | None
    idle: frozenset[str]


def last_accessed(account: Account, arn: str) -> dict[str, Service]:
    """Return the services that a user, group, role or policy may use, by namespace; IAM is asked once."""
    if arn not in account.usage:
        account.usage[arn] = dict(_ask(account, arn))
    return account.usage[arn]


def _ask(account: Account, arn: str) -> Iterable[tuple[str, Service]]:
    job = account.call("iam", "generate_service_last_accessed_details", Arn=arn, Granularity="ACTION_LEVEL")["JobId"]
    request = {"JobId": job}
    while True:
        answer = account.call("iam", "get_service_last_accessed_details", **request)
        if answer["JobStatus"] == "IN_PROGRESS":
            time.sleep(0.5)
            continue
        if answer["JobStatus"] == "FAILED":
            raise AwsError(f"IAM could not say what {arn} has used: {answer.get('Error', {}).get('Message')}")
        for service in answer["ServicesLastAccessed"]:
            idle = (
                f"{service['ServiceNamespace']}:{action['ActionName']}".lower()
                for action in service.get("TrackedActionsLastAccessed", [])
                if not account.is_recent(action.get("LastAccessedTime"))
            )
            yield service["ServiceNamespace"], Service(service.get("LastAuthenticated"), frozenset(idle))
        if not answer.get("IsTruncated"):
            return
        request["Marker"] = answer["Marker"]


def least_privilege(account: Account, arn: str, documents: Iterable[Document]) -> Document | None:
    """Return the documents as one, with what was used of them.

    Left are the actions of used services, without those that IAM tracks and that nobody used. It tracks no access to
    data, such as s3:GetObject. Where a statement says `*`, policy-sentry knows the resources; others keep theirs.
    None: nothing was used, IAM does not know, or the document is longer than IAM takes.
    """
    services = last_accessed(account, arn)
    used = {name: service for name, service in services.items() if account.is_recent(service.last)}

    def keep(action: str) -> bool:
        name = action.partition(":")[0]
        return name in used and action not in used[name].idle

    narrowed: list[Statement] = []
    for old in (each for document in documents for each in statements(document)):
        narrowed += [each for each in _narrow(account, old, keep) if each not in narrowed]
    document = {"Version": "2012-10-17", "Statement": narrowed}
    nothing = all(each["Effect"] == "Deny" for each in narrowed)
    return None if nothing or len(json.dumps(document)) > _LONGEST else document


def _narrow(account: Account, old: Statement, keep: Callable[[str], bool]) -> Iterable[Statement]:
    if old["Effect"] == "Deny":
        return [old]
    rest: Statement = {"Effect": "Allow", **({"Condition": old["Condition"]} if "Condition" in old else {})}
    by_resources = defaultdict[tuple[str, ...], list[str]](list)
    for action in sorted(filter(keep, actions(old))):
        by_resources[_resources(account, action)].append(spellings().get(action, action))
    if "*" in listed(old.get("Resource")):
        return [{**rest, "Action": names, "Resource": list(arns)} for arns, names in by_resources.items()]
    kept = sorted(name for names in by_resources.values() for name in names)
    where: Statement = {name: old[name] for name in ("Resource", "NotResource") if name in old}
    return [{**rest, "Action": kept, **where}] if kept else []


def _resources(account: Account, action: str) -> tuple[str, ...]:
    """Return what an action may be allowed on, in this account and region."""
    from policy_sentry.querying.actions import get_action_data

    service, _, name = action.partition(":")
    places = {"Partition": account.partition, "Region": account.region, "Account": account.id}
    known = [row["resource_arn_format"] for row in get_action_data(service, name).get(service, [])]
    arns = {re.sub(r"\$\{(\w+)\}", lambda each: places.get(each[1], "*"), arn) for arn in known}
    return tuple(sorted(arns)) or ("*",)
