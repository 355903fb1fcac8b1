"""CloudFormation's types of Application Auto Scaling."""

from __future__ import annotations

from dataclasses import dataclass

from emulator.ministack.cloudformation.resources import (
    Created,
    Services,
    call,
    caller,
    failure,
    missing,
    tag_changes,
    tag_map,
)
from emulator.platform.awsapi import Payload
from emulator.platform.errors import ServiceError

#: What names a scalable target, in the order of its physical id.
_TARGET_MEMBERS = ("ResourceId", "ScalableDimension", "ServiceNamespace")


@dataclass(frozen=True)
class ScalableTarget:
    """``AWS::ApplicationAutoScaling::ScalableTarget``, known by ``<resource>|<dimension>|<namespace>``."""

    services: Services

    type_name = "AWS::ApplicationAutoScaling::ScalableTarget"
    service_name = "application-autoscaling"
    replacing_properties = _TARGET_MEMBERS

    def create(self, logical_id: str, properties: Payload, stack_name: str) -> Created:
        identity, _ = self._register(properties, tags=tag_map(properties))
        return identity, {"Id": identity}

    def update(self, identity: str, old: Payload, new: Payload, stack_name: str, logical_id: str) -> Created:
        kept = {action["ScheduledActionName"] for action in new.get("ScheduledActions") or []}
        for action in old.get("ScheduledActions") or []:
            if action["ScheduledActionName"] not in kept:
                name = {"ScheduledActionName": action["ScheduledActionName"]}
                _delete(self, "DeleteScheduledAction", {**name, **_target(identity)})
        _, arn = self._register(new)
        gone, changed = tag_changes(tag_map(old), tag_map(new))
        if gone:
            _call(self, "UntagResource", {"ResourceARN": arn, "TagKeys": gone})
        if changed:
            _call(self, "TagResource", {"ResourceARN": arn, "Tags": changed})
        return identity, {"Id": identity}

    def _register(self, properties: Payload, tags: dict[str, str] | None = None) -> tuple[str, str]:
        """Register the target with its scheduled actions.

        Returns
        -------
        The physical id and the ARN.
        """
        own = {key: value for key, value in properties.items() if key not in ("ScheduledActions", "Tags")}
        # Tags are only taken for a target that is new.
        answer = _call(self, "RegisterScalableTarget", {**own, "Tags": tags} if tags else own)
        identity = "|".join(str(properties[key]) for key in self.replacing_properties)
        for action in properties.get("ScheduledActions") or []:
            _call(self, "PutScheduledAction", {**action, **_target(identity)})
        return identity, answer["ScalableTargetARN"]

    def delete(self, identity: str, properties: Payload) -> None:
        _delete(self, "DeregisterScalableTarget", _target(identity))


@dataclass(frozen=True)
class ScalingPolicy:
    """``AWS::ApplicationAutoScaling::ScalingPolicy``, known by its ARN."""

    services: Services

    type_name = "AWS::ApplicationAutoScaling::ScalingPolicy"
    service_name = "application-autoscaling"
    replacing_properties = ("PolicyName", "ScalingTargetId", *_TARGET_MEMBERS)

    def create(self, logical_id: str, properties: Payload, stack_name: str) -> Created:
        arn = _call(self, "PutScalingPolicy", self._with_target(properties))["PolicyARN"]
        return arn, {"Arn": arn}

    def update(self, arn: str, old: Payload, new: Payload, stack_name: str, logical_id: str) -> Created:
        return self.create(logical_id, new, stack_name)

    def delete(self, arn: str, properties: Payload) -> None:
        request = self._with_target(properties)
        _delete(self, "DeleteScalingPolicy", {key: request[key] for key in ("PolicyName", *_TARGET_MEMBERS)})

    @staticmethod
    def _with_target(properties: Payload) -> Payload:
        request = dict(properties)
        identity = request.pop("ScalingTargetId", None)
        return {**request, **_target(identity)} if identity else request


def _target(identity: str) -> Payload:
    return dict(zip(_TARGET_MEMBERS, identity.split("|"), strict=True))


def _call(resource: ScalableTarget | ScalingPolicy, operation: str, properties: Payload) -> Payload:
    return call(resource.services[resource.service_name], operation, properties)


def _delete(resource: ScalableTarget | ScalingPolicy, operation: str, request: Payload) -> None:
    try:
        resource.services[resource.service_name].call(operation, request, caller())
    except ServiceError as error:
        if not missing(error):
            raise failure(error, resource.service_name) from None
