"""The records of Application Auto Scaling: scalable targets with what is theirs."""

from __future__ import annotations

from emulator.platform.awsapi import Payload
from emulator.platform.store import Record, Store

SERVICE = "application-autoscaling"
TARGET_MEMBERS = ("ServiceNamespace", "ResourceId", "ScalableDimension")
#: Between the parts of a record's name; AWS allows this character in none of them.
_SEPARATOR = "\x1f"


class Tables:
    """The tables; a record's name begins with its region and what names its target."""

    def __init__(self, store: Store) -> None:
        self.targets = store.table(SERVICE, "scalable-target")
        self.policies = store.table(SERVICE, "scaling-policy")
        self.actions = store.table(SERVICE, "scheduled-action")
        self.activities = store.table(SERVICE, "scaling-activity")

    def target(self, region: str, members: Payload) -> Record | None:
        """Give the scalable target that a request or another record is about."""
        return self.targets.get(target_key(region, members))


def key(*parts: str) -> str:
    """Give the name of a record."""
    return _SEPARATOR.join(parts)


def target_key(region: str, members: Payload) -> str:
    """Give the name of the scalable target that a request or another record is about."""
    return key(region, *(members[member] for member in TARGET_MEMBERS))


def region_of(arn: str) -> str:
    """Give the region in an ARN."""
    return arn.split(":")[3]
