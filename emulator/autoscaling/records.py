"""The records of Application Auto Scaling: scalable targets with what is theirs."""

from __future__ import annotations

from collections.abc import Iterable

from emulator.platform.awsapi import Payload
from emulator.platform.monitoring import Monitoring
from emulator.platform.store import Record, Store

SERVICE = "application-autoscaling"
TARGET_MEMBERS = ("ServiceNamespace", "ResourceId", "ScalableDimension")
#: Between the parts of a record's name; AWS allows this character in none of them.
_SEPARATOR = "\x1f"


class Tables:
    """The tables. The name of a record begins with that of its target; ``Region`` is a member of each."""

    def __init__(self, store: Store) -> None:
        self.targets = store.table(SERVICE, "scalable-target")
        self.policies = store.table(SERVICE, "scaling-policy")
        self.actions = store.table(SERVICE, "scheduled-action")
        self.activities = store.table(SERVICE, "scaling-activity")


def key(*parts: str) -> str:
    return _SEPARATOR.join(parts)


def target_key(members: Payload, region: str = "") -> str:
    """Give the name of the scalable target that a record is about, or a request in a region."""
    return key(region or members["Region"], *(members[member] for member in TARGET_MEMBERS))


def alarm_names(policy: Record) -> list[str]:
    return [alarm["AlarmName"] for alarm in policy.get("Alarms", [])]


def deregister(store: Store, monitoring: Monitoring, region: str, namespace: str, resource_ids: Iterable[str]) -> None:
    """Forget targets, policies with their alarms and scheduled actions of resources that have been deleted."""
    tables = Tables(store)
    for resource_id in resource_ids:
        prefix = key(region, namespace, resource_id, "")
        names = [alarm for policy in tables.policies.list(prefix) for alarm in alarm_names(policy)]
        monitoring.delete_alarms(region, names)
        for table in (tables.targets, tables.policies, tables.actions):
            table.delete_all(prefix)
