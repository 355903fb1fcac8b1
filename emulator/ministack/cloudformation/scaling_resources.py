"""CloudFormation's types of Application Auto Scaling."""

from __future__ import annotations

from dataclasses import dataclass

from emulator.ministack.cloudformation.resources import Created, ResourceType, tag_changes, tag_map
from emulator.platform.awsapi import Payload

#: What names a scalable target, in the order of its physical id.
_TARGET_MEMBERS = ("ResourceId", "ScalableDimension", "ServiceNamespace")


@dataclass(frozen=True)
class ScalableTarget(ResourceType):
    """``AWS::ApplicationAutoScaling::ScalableTarget``, known by ``<resource>|<dimension>|<namespace>``."""

    type_name = "AWS::ApplicationAutoScaling::ScalableTarget"
    replacing_properties = _TARGET_MEMBERS

    def create(self, logical_id: str, properties: Payload, stack_name: str) -> Created:
        identity, _ = self._register(properties, tags=tag_map(properties))
        return identity, {"Id": identity}

    def update(self, identity: str, old: Payload, new: Payload, stack_name: str, logical_id: str) -> Created:
        before, kept = (
            {action["ScheduledActionName"] for action in properties.get("ScheduledActions") or []}
            for properties in (old, new)
        )
        for name in sorted(before - kept):
            self.remove("DeleteScheduledAction", {"ScheduledActionName": name, **_target(identity)})
        _, arn = self._register(new)
        gone, changed = tag_changes(tag_map(old), tag_map(new))
        if gone:
            self.call("UntagResource", {"ResourceARN": arn, "TagKeys": gone})
        if changed:
            self.call("TagResource", {"ResourceARN": arn, "Tags": changed})
        return identity, {"Id": identity}

    def _register(self, properties: Payload, tags: dict[str, str] | None = None) -> tuple[str, str]:
        """Register the target with its scheduled actions; its physical id and its ARN."""
        own = {key: value for key, value in properties.items() if key not in ("ScheduledActions", "Tags")}
        # Tags are only taken for a target that is new.
        answer = self.call("RegisterScalableTarget", {**own, "Tags": tags} if tags else own)
        identity = "|".join(str(properties[key]) for key in _TARGET_MEMBERS)
        for action in properties.get("ScheduledActions") or []:
            self.call("PutScheduledAction", {**action, **_target(identity)})
        return identity, answer["ScalableTargetARN"]

    def delete(self, identity: str, properties: Payload) -> None:
        self.remove("DeregisterScalableTarget", _target(identity))


@dataclass(frozen=True)
class ScalingPolicy(ResourceType):
    """``AWS::ApplicationAutoScaling::ScalingPolicy``, known by its ARN."""

    type_name = "AWS::ApplicationAutoScaling::ScalingPolicy"
    replacing_properties = ("PolicyName", "ScalingTargetId", *_TARGET_MEMBERS)

    def create(self, logical_id: str, properties: Payload, stack_name: str) -> Created:
        arn = self.call("PutScalingPolicy", _with_target(properties))["PolicyARN"]
        return arn, {"Arn": arn}

    def update(self, arn: str, old: Payload, new: Payload, stack_name: str, logical_id: str) -> Created:
        return self.create(logical_id, new, stack_name)

    def delete(self, arn: str, properties: Payload) -> None:
        request = _with_target(properties)
        self.remove("DeleteScalingPolicy", {key: request[key] for key in ("PolicyName", *_TARGET_MEMBERS)})


def _with_target(properties: Payload) -> Payload:
    request = dict(properties)
    identity = request.pop("ScalingTargetId", None)
    return {**request, **_target(identity)} if identity else request


def _target(identity: str) -> Payload:
    return dict(zip(_TARGET_MEMBERS, identity.split("|"), strict=True))
