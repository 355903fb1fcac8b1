"""CloudFormation's types of SageMaker and Application Auto Scaling."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ministack.core.responses import get_account_id, get_region

from emulator.platform.awsapi import Caller, Payload, Service
from emulator.platform.errors import ServiceError

#: What MiniStack wants of a handler: the physical id (``Ref``) and the attributes (``Fn::GetAtt``).
Created = tuple[str, dict[str, Any]]

_POLL_SECONDS = 0.05
_NAME_LIMIT = 63
_RESERVED_TAGS = "aws:"
_TITLES = {"sagemaker": "SageMaker", "application-autoscaling": "ApplicationAutoScaling"}
#: What names a scalable target, in the order of its physical id.
_TARGET_MEMBERS = ("ResourceId", "ScalableDimension", "ServiceNamespace")
#: Where a notebook instance may come to rest, as nobody but its user wants it.
_STOPPED = "Stopped"


def caller() -> Caller:
    """In whose account and region the stack operation at hand acts."""
    return Caller(get_account_id(), get_region())


@dataclass(frozen=True)
class ResourceType:
    service: Service

    def call(self, operation: str, properties: Payload) -> Payload:
        """Make a request of a template's properties, or raise a ValueError with the reason for a stack event."""
        try:
            return self.service.call(operation, properties, caller(), by_aws=True)
        except ServiceError as error:
            raise self.failure(error) from None

    def remove(self, operation: str, request: Payload) -> None:
        try:
            self.service.call(operation, request, caller())
        except ServiceError as error:
            if not missing(error):
                raise self.failure(error) from None

    def failure(self, error: ServiceError) -> ValueError:
        """An error of the service as the reason of a stack event; MiniStack takes the text of any exception."""
        origin = f"Service: {_TITLES[self.service.name]}, Status Code: {error.status}, Error Code: {error.code}"
        return ValueError(handler_message(f"{error.message} ({origin})"))


def missing(error: ServiceError) -> bool:
    """Whether an error says that the thing does not exist, which SageMaker has no code for."""
    if error.code == "ValidationException":
        beginnings, end = ("Could not find", "RecordNotFound"), "does not exist."
        return error.message.startswith(beginnings) or error.message.endswith(end)
    return error.code in ("ResourceNotFound", "ObjectNotFoundException")


@dataclass(frozen=True)
class NamedResource(ResourceType):
    """A SageMaker resource: made under a name, known by its ARN.

    ``settled`` has the statuses in which a create or an update has come to its end, and whether it is a good one; none
    where the operations are finished when they answer.
    """

    kind: str  # as in ``Create<kind>``, ``<kind>Name`` and ``<kind>Arn``
    replacing: tuple[str, ...] | None = None  # properties whose change makes a new resource; None: all but the tags
    updated: tuple[str, ...] = ()  # properties that ``Update<kind>`` takes
    update_only: tuple[str, ...] = ()  # properties that have a meaning for updates alone
    settled: Mapping[str, bool] = field(default_factory=dict)
    stopped_for: bool = False  # whether it has to be stopped for an update or its deletion

    @property
    def type_name(self) -> str:
        return f"AWS::SageMaker::{self.kind}"

    @property
    def replacing_properties(self) -> tuple[str, ...]:
        if self.replacing is not None:
            return self.replacing
        shape = self.service.model.operation_model(f"Create{self.kind}").input_shape
        return tuple(name for name in shape.members if name != "Tags")

    def create(self, logical_id: str, properties: Payload, stack_name: str) -> Created:
        request = {key: value for key, value in properties.items() if key not in self.update_only}
        name = request.setdefault(f"{self.kind}Name", generated_name(stack_name, logical_id))
        arn = str(self.call(f"Create{self.kind}", request)[f"{self.kind}Arn"])
        try:
            self._settle(name)
        except ValueError:
            # CloudFormation would delete it while it rolls back; MiniStack does not record what failed.
            self.delete(arn, {f"{self.kind}Name": name})
            raise
        return self._made(arn, name)

    def update(self, arn: str, old: Payload, new: Payload, stack_name: str, logical_id: str) -> Created:
        name = self._name(arn, new)
        gone, changed = tag_changes(tag_map(old), tag_map(new))
        if gone:
            self.call("DeleteTags", {"ResourceArn": arn, "TagKeys": gone})
        if changed:
            tags = [{"Key": key, "Value": value} for key, value in changed.items()]
            self.call("AddTags", {"ResourceArn": arn, "Tags": tags})
        if any(old.get(key) != new.get(key) for key in self.updated):
            accepted = {key: value for key, value in new.items() if key in (*self.updated, *self.update_only)}
            was_running = self._stop(name)
            self.call(f"Update{self.kind}", {f"{self.kind}Name": name, **accepted})
            self._settle(name)
            self._check_config(name, accepted.get("EndpointConfigName"))
            if was_running:
                self.call(f"Start{self.kind}", {f"{self.kind}Name": name})
                self._settle(name)
        return self._made(arn, name)

    def delete(self, arn: str, properties: Payload) -> None:
        name = self._name(arn, properties)
        try:
            self._stop(name)
            self.service.call(f"Delete{self.kind}", {f"{self.kind}Name": name}, caller())
            while self.settled:
                self._describe(name)
                time.sleep(_POLL_SECONDS)
        except ServiceError as error:
            if not missing(error):
                raise self.failure(error) from None

    def _name(self, arn: str, properties: Payload) -> str:
        # An ARN holds its name in lower case; generated names are.
        return str(properties.get(f"{self.kind}Name") or arn.rsplit("/", 1)[-1])

    def _made(self, arn: str, name: str) -> Created:
        return arn, {f"{self.kind}Name": name, "Id": arn, f"{self.kind}Arn": arn}

    def _describe(self, name: str) -> Payload:
        return self.service.call(f"Describe{self.kind}", {f"{self.kind}Name": name}, caller())

    def _rest(self, name: str) -> str:
        """Wait until nothing is going on; the status then, empty for a kind that has none."""
        while self.settled:
            status = str(self._describe(name)[f"{self.kind}Status"])
            if status in (*self.settled, _STOPPED):
                return status
            time.sleep(_POLL_SECONDS)
        return ""

    def _stop(self, name: str) -> bool:
        """Wait until nothing is going on, and stop what has to be stopped; whether it ran."""
        running = self._rest(name) == "InService" and self.stopped_for
        if running:
            self.call(f"Stop{self.kind}", {f"{self.kind}Name": name})
            self._rest(name)
        return running

    def _settle(self, name: str) -> None:
        """Wait for the end of what is going on, which has to be a good one."""
        try:
            status = self._rest(name)
            if self.settled.get(status, True):
                return
            reason = self._describe(name).get("FailureReason")
        except ServiceError as error:
            raise self.failure(error) from None
        raise ValueError(handler_message(reason or f"{self.kind} {name} is {status}."))

    def _check_config(self, name: str, wanted: str | None) -> None:
        """Refuse an update that failed: an endpoint then is in service with the config that it had."""
        if wanted is not None and (description := self._describe(name))["EndpointConfigName"] != wanted:
            reason = description.get("FailureReason") or "it went back to its previous endpoint config"
            raise ValueError(handler_message(f"The update of endpoint {name} failed: {reason}"))


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


def tag_changes(old: dict[str, str], new: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Keys to remove and tags to set; the tags that CloudFormation itself sets never change."""
    gone = sorted(key for key in old.keys() - new.keys() if not key.startswith(_RESERVED_TAGS))
    changed = {k: v for k, v in new.items() if old.get(k) != v and not k.startswith(_RESERVED_TAGS)}
    return gone, changed


def tag_map(properties: Payload) -> dict[str, str]:
    return {tag["Key"]: str(tag["Value"]) for tag in properties.get("Tags") or []}


def generated_name(stack_name: str, logical_id: str) -> str:
    """A name for what the template does not name: readable, unique, and equal to its lower case."""
    suffix = uuid.uuid4().hex[:12]
    stem = f"{stack_name[:24]}-{logical_id[:24]}"[: _NAME_LIMIT - len(suffix) - 1].strip("-")
    return f"{stem}-{suffix}".lower()


def handler_message(reason: str, code: str = "GeneralServiceException") -> str:
    return f'Resource handler returned message: "{reason}" (HandlerErrorCode: {code})'
