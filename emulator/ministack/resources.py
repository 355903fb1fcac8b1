"""The CloudFormation types that MiniStack lacks, on top of our own services."""

from __future__ import annotations

import functools
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from emulator.awsapi import Caller, Payload, Service
from emulator.errors import ServiceError
from emulator.ministack.properties import coerce

logger = logging.getLogger(__name__)

Services = Mapping[str, Service]
#: What MiniStack wants of a handler: the physical id (``Ref``) and the attributes (``Fn::GetAtt``).
Created = tuple[str, dict[str, Any]]

_POLL_SECONDS = 0.05
_NAME_LIMIT = 63
_RESERVED_TAGS = "aws:"


def caller() -> Caller:
    """In whose account and region the stack operation at hand acts."""
    from ministack.core.responses import get_account_id, get_region

    return Caller(get_account_id(), get_region())


def missing(error: ServiceError) -> bool:
    """Whether an error says that the thing does not exist, which SageMaker has no code for."""
    if error.code == "ValidationException":
        return error.message.startswith(("Could not find", "RecordNotFound"))
    return error.code in ("ResourceNotFound", "ObjectNotFoundException")


@dataclass(frozen=True)
class NamedResource:
    """A SageMaker resource: made under a name, known by its ARN.

    Attributes
    ----------
    kind
        As in ``Create<kind>``; the name is the property ``<kind>Name`` and the ARN the member ``<kind>Arn``.
    replacing
        Properties whose change makes a new resource; all but the tags where None.
    updated
        Properties that ``Update<kind>`` takes.
    update_only
        Properties of the type that have a meaning for updates alone.
    settled
        Statuses in which a create or an update has come to its end, and whether it is a good one; none where the
        operations are finished when they answer.
    stopped_for
        Whether the resource has to be stopped for an update or its deletion.
    """

    services: Services
    kind: str
    replacing: tuple[str, ...] | None = None
    updated: tuple[str, ...] = ()
    update_only: tuple[str, ...] = ()
    settled: Mapping[str, bool] = field(default_factory=dict)
    stopped_for: bool = False

    service_name = "sagemaker"

    @property
    def type_name(self) -> str:
        return f"AWS::SageMaker::{self.kind}"

    @property
    def replacing_properties(self) -> tuple[str, ...]:
        if self.replacing is not None:
            return self.replacing
        shape = self.services["sagemaker"].model.operation_model(f"Create{self.kind}").input_shape
        return tuple(name for name in shape.members if name != "Tags")

    @property
    def name_property(self) -> str:
        return f"{self.kind}Name"

    @property
    def _status(self) -> str:
        return f"{self.kind}Status"

    def create(self, logical_id: str, properties: Payload, stack_name: str) -> Created:
        request = self._request(f"Create{self.kind}", properties, self.update_only)
        request.setdefault(self.name_property, generated_name(stack_name, logical_id))
        arn = str(self._call(f"Create{self.kind}", request)[f"{self.kind}Arn"])
        name = request[self.name_property]
        try:
            self._settle(name)
        except ValueError:
            # CloudFormation would delete it while it rolls back; MiniStack does not record what failed.
            self.delete(arn, {self.name_property: name})
            raise
        return arn, self._attributes(arn, name)

    def update(self, arn: str, old: Payload, new: Payload, stack_name: str, logical_id: str) -> Created:
        name = self._name(arn, new)
        self._retag(arn, old, new)
        changed = {key for key in (*self.updated, *self.update_only) if old.get(key) != new.get(key)}
        if changed - set(self.update_only):
            accepted = {key: value for key, value in new.items() if key in (*self.updated, *self.update_only)}
            request = {self.name_property: name, **self._request(f"Update{self.kind}", accepted)}
            self._settle(name, dict.fromkeys(self.settled, True))
            if self.stopped_for:
                self._stop(name)
            self._call(f"Update{self.kind}", request)
            self._settle_update(name, request)
            if self.stopped_for:
                self._settle(name, {"Stopped": True, "Failed": False})
                self._call(f"Start{self.kind}", {self.name_property: name})
                self._settle(name)
        return arn, self._attributes(arn, name)

    def delete(self, arn: str, properties: Payload) -> None:
        name = self._name(arn, properties)
        service = self.services[self.service_name]
        try:
            while self.settled and self._describe(name)[self._status] not in (*self.settled, "Stopped"):
                time.sleep(_POLL_SECONDS)
            if self.stopped_for:
                self._stop(name)
            service.call(f"Delete{self.kind}", {self.name_property: name}, caller())
            while self.settled:
                self._describe(name)
                time.sleep(_POLL_SECONDS)
        except ServiceError as error:
            if not missing(error):
                raise failure(error, self.service_name) from None

    def _name(self, arn: str, properties: Payload) -> str:
        # An ARN holds its name in lower case; generated names are.
        return str(properties.get(self.name_property) or arn.rsplit("/", 1)[-1])

    def _attributes(self, arn: str, name: str) -> dict[str, Any]:
        return {self.name_property: name, "Id": arn, f"{self.kind}Arn": arn}

    def _request(self, operation: str, properties: Payload, ignored: tuple[str, ...] = ()) -> Payload:
        shape = self.services[self.service_name].model.operation_model(operation).input_shape
        return coerce({key: value for key, value in properties.items() if key not in ignored}, shape)

    def _call(self, operation: str, request: Payload) -> Payload:
        try:
            return self.services[self.service_name].call(operation, request, caller())
        except ServiceError as error:
            raise failure(error, self.service_name) from None

    def _describe(self, name: str) -> Payload:
        return self.services[self.service_name].call(f"Describe{self.kind}", {self.name_property: name}, caller())

    def _settle(self, name: str, settled: Mapping[str, bool] | None = None) -> Payload:
        """Wait for the end of what is going on, which has to be a good one."""
        settled = self.settled if settled is None else settled
        if not settled:
            return {}
        while True:
            try:
                description = self._describe(name)
            except ServiceError as error:
                raise failure(error, self.service_name) from None
            status = description[self._status]
            if status in settled:
                break
            time.sleep(_POLL_SECONDS)
        if not settled[status]:
            raise ValueError(handler_message(description.get("FailureReason") or f"{self.kind} {name} is {status}."))
        return description

    def _settle_update(self, name: str, request: Payload) -> None:
        """A failed update of an endpoint leaves it in service with the config that it had."""
        description = self._settle(name, None if not self.stopped_for else {"Stopped": True, "Failed": False})
        wanted = request.get("EndpointConfigName")
        if wanted is not None and description.get("EndpointConfigName") != wanted:
            reason = description.get("FailureReason") or "it went back to its previous endpoint config"
            raise ValueError(handler_message(f"The update of endpoint {name} failed: {reason}"))

    def _stop(self, name: str) -> None:
        if self._describe(name)[self._status] == "InService":
            self._call(f"Stop{self.kind}", {self.name_property: name})
        self._settle(name, {"Stopped": True, "Failed": True})

    def _retag(self, arn: str, old: Payload, new: Payload) -> None:
        gone, changed = tag_changes(_tag_map(old), _tag_map(new))
        if gone:
            self._call("DeleteTags", {"ResourceArn": arn, "TagKeys": gone})
        if changed:
            tags = [{"Key": key, "Value": value} for key, value in changed.items()]
            self._call("AddTags", {"ResourceArn": arn, "Tags": tags})


def tag_changes(old: dict[str, str], new: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Keys to remove and tags to set; the tags that CloudFormation itself sets never change."""
    gone = sorted(key for key in old.keys() - new.keys() if not key.startswith(_RESERVED_TAGS))
    changed = {k: v for k, v in new.items() if old.get(k) != v and not k.startswith(_RESERVED_TAGS)}
    return gone, changed


def _tag_map(properties: Payload) -> dict[str, str]:
    return {tag["Key"]: str(tag["Value"]) for tag in properties.get("Tags") or []}


def generated_name(stack_name: str, logical_id: str) -> str:
    """A name for what the template does not name: readable, unique, and equal to its lower case."""
    suffix = uuid.uuid4().hex[:12]
    stem = f"{stack_name[:24]}-{logical_id[:24]}"[: _NAME_LIMIT - len(suffix) - 1].strip("-")
    return f"{stem}-{suffix}".lower()


def handler_message(reason: str) -> str:
    """How CloudFormation words the failure of a resource."""
    return f'Resource handler returned message: "{reason}" (HandlerErrorCode: GeneralServiceException)'


def failure(error: ServiceError, service: str) -> ValueError:
    """An error of a service as the reason of a stack event; MiniStack takes the text of any exception."""
    title = {"sagemaker": "SageMaker", "application-autoscaling": "ApplicationAutoScaling"}[service]
    return ValueError(
        handler_message(f"{error.message} (Service: {title}, Status Code: {error.status}, Error Code: {error.code})")
    )


@dataclass(frozen=True)
class ScalableTarget:
    """``AWS::ApplicationAutoScaling::ScalableTarget``, known by ``<resource>|<dimension>|<namespace>``."""

    services: Services

    type_name = "AWS::ApplicationAutoScaling::ScalableTarget"
    service_name = "application-autoscaling"
    replacing_properties = ("ResourceId", "ScalableDimension", "ServiceNamespace")

    def create(self, logical_id: str, properties: Payload, stack_name: str) -> Created:
        identity, _ = self._register(properties, tags=_tag_map(properties))
        return identity, {"Id": identity}

    def update(self, identity: str, old: Payload, new: Payload, stack_name: str, logical_id: str) -> Created:
        kept = {action["ScheduledActionName"] for action in new.get("ScheduledActions") or []}
        for action in old.get("ScheduledActions") or []:
            if action["ScheduledActionName"] not in kept:
                name = {"ScheduledActionName": action["ScheduledActionName"]}
                _delete(self, "DeleteScheduledAction", {**name, **_target(identity)})
        _, arn = self._register(new)
        gone, changed = tag_changes(_tag_map(old), _tag_map(new))
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
    replacing_properties = ("PolicyName", "ResourceId", "ScalableDimension", "ServiceNamespace", "ScalingTargetId")

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


@dataclass(frozen=True)
class RecordOnly:
    """A type that has no effect here: the stack has it, and nothing else."""

    type_name: str

    replacing_properties = ()

    def create(self, logical_id: str, properties: Payload, stack_name: str) -> Created:
        identity = generated_name(stack_name, logical_id)
        service = self.type_name.split("::")[1].lower()
        arn = f"arn:aws:{service}:{caller().region}:{caller().account}:{identity}"
        return identity, {"Id": identity, "Arn": arn}

    def update(self, identity: str, old: Payload, new: Payload, stack_name: str, logical_id: str) -> Created:
        service = self.type_name.split("::")[1].lower()
        return identity, {"Id": identity, "Arn": f"arn:aws:{service}:{caller().region}:{caller().account}:{identity}"}

    def delete(self, identity: str, properties: Payload) -> None:
        logger.debug("%s %s was only on record", self.type_name, identity)


#: Types of which a stack keeps a record here and nothing more.
RECORD_ONLY = (
    "AWS::Budgets::Budget",
    "AWS::CloudTrail::Trail",
    "AWS::CloudWatch::AnomalyDetector",
    "AWS::CloudWatch::CompositeAlarm",
)
_TARGET_MEMBERS = ("ResourceId", "ScalableDimension", "ServiceNamespace")


def _target(identity: str) -> Payload:
    return dict(zip(_TARGET_MEMBERS, identity.split("|"), strict=True))


def _call(resource: ScalableTarget | ScalingPolicy, operation: str, properties: Payload) -> Payload:
    service = resource.services[resource.service_name]
    request = coerce(properties, service.model.operation_model(operation).input_shape)
    try:
        return service.call(operation, request, caller())
    except ServiceError as error:
        raise failure(error, resource.service_name) from None


def _delete(resource: ScalableTarget | ScalingPolicy, operation: str, request: Payload) -> None:
    try:
        resource.services[resource.service_name].call(operation, request, caller())
    except ServiceError as error:
        if not missing(error):
            raise failure(error, resource.service_name) from None


def resource_types(services: Services) -> list[Any]:
    """Every type that this module adds."""
    done = {"InService": True, "Failed": False}
    retain = ("RetainAllVariantProperties", "ExcludeRetainedVariantProperties", "RetainDeploymentConfig")
    return [
        NamedResource(services, "Model"),
        NamedResource(services, "EndpointConfig"),
        NamedResource(
            services,
            "Endpoint",
            replacing=("EndpointName",),
            updated=("EndpointConfigName", "DeploymentConfig"),
            update_only=retain,
            settled=done | {"UpdateRollbackFailed": False, "OutOfService": False},
        ),
        NamedResource(
            services,
            "NotebookInstance",
            replacing=(
                *("NotebookInstanceName", "DirectInternetAccess", "KmsKeyId", "SecurityGroupIds", "SubnetId"),
                "PlatformIdentifier",
            ),
            updated=(
                *("InstanceType", "RoleArn", "LifecycleConfigName", "VolumeSizeInGB", "RootAccess"),
                *("DefaultCodeRepository", "AdditionalCodeRepositories", "AcceleratorTypes"),
                "InstanceMetadataServiceConfiguration",
            ),
            settled=done,
            stopped_for=True,
        ),
        NamedResource(
            services,
            "NotebookInstanceLifecycleConfig",
            replacing=("NotebookInstanceLifecycleConfigName",),
            updated=("OnCreate", "OnStart"),
        ),
        ScalableTarget(services),
        ScalingPolicy(services),
    ]


def install(services: Services, checkpoint: Callable[[], None]) -> None:
    """Make the types known to MiniStack's CloudFormation.

    Parameters
    ----------
    services
        Ours, by name.
    checkpoint
        Called before anything is made, changed or deleted, to save what the stack is about to do: our services save
        what they do at once, and after the death of the server the two must fit together.

    They block until what they make is in service, so they run on a thread: an endpoint fetches its model from the S3
    of this very server, whose event loop must go on.
    """
    from ministack.services.cloudformation import provisioners, stacks

    added = [*resource_types(services), *map(RecordOnly, RECORD_ONLY)]
    names = frozenset(resource.type_name for resource in added)
    for resource in added:
        provisioners._RESOURCE_HANDLERS[resource.type_name] = {
            "create": _after(checkpoint, resource.create),
            "update": _after(checkpoint, resource.update),
            "update_with_logical_id": True,
            "delete": _after(checkpoint, resource.delete),
        }
        provisioners._REPLACING_PROPERTIES[resource.type_name] = resource.replacing_properties
        if isinstance(resource, NamedResource | ScalableTarget):
            provisioners._STACK_TAG_PROPERTY[resource.type_name] = ("Tags", "list")

    blocks = stacks._runs_on_worker_thread
    stacks._runs_on_worker_thread = lambda resource_type: resource_type in names or blocks(resource_type)


def _after(first: Callable[[], None], then: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(then)
    def run(*args: Any) -> Any:
        first()
        return then(*args)

    return run
