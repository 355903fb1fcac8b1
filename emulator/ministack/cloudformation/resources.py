"""What CloudFormation's types of our services have in common, and those of SageMaker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emulator.ministack.cloudformation.properties import coerce
from emulator.platform.awsapi import Caller, Payload, Service
from emulator.platform.errors import ServiceError

Services = Mapping[str, Service]
#: What MiniStack wants of a handler: the physical id (``Ref``) and the attributes (``Fn::GetAtt``).
Created = tuple[str, dict[str, Any]]

_POLL_SECONDS = 0.05
_NAME_LIMIT = 63
_RESERVED_TAGS = "aws:"
#: Where a notebook instance may come to rest, as nobody but its user wants it.
_STOPPED = "Stopped"


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
        request = {key: value for key, value in properties.items() if key not in self.update_only}
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
        if any(old.get(key) != new.get(key) for key in self.updated):
            accepted = {key: value for key, value in new.items() if key in (*self.updated, *self.update_only)}
            request = {self.name_property: name, **accepted}
            before = self._rest(name)
            if self.stopped_for and before == "InService":
                self._call(f"Stop{self.kind}", {self.name_property: name})
                self._rest(name)
            self._call(f"Update{self.kind}", request)
            self._check_config(name, request)
            if self.stopped_for and before == "InService":
                self._rest(name)
                self._call(f"Start{self.kind}", {self.name_property: name})
                self._settle(name)
        return arn, self._attributes(arn, name)

    def delete(self, arn: str, properties: Payload) -> None:
        name = self._name(arn, properties)
        service = self.services[self.service_name]
        try:
            if self._rest(name) == "InService" and self.stopped_for:
                self._call(f"Stop{self.kind}", {self.name_property: name})
                self._rest(name)
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

    def _call(self, operation: str, properties: Payload) -> Payload:
        return call(self.services[self.service_name], operation, properties)

    def _describe(self, name: str) -> Payload:
        return self.services[self.service_name].call(f"Describe{self.kind}", {self.name_property: name}, caller())

    def _rest(self, name: str) -> str:
        """Wait until nothing is going on; the status then, empty for a kind that has none."""
        while self.settled:
            status = str(self._describe(name)[self._status])
            if status in (*self.settled, _STOPPED):
                return status
            time.sleep(_POLL_SECONDS)
        return ""

    def _settle(self, name: str) -> None:
        """Wait for the end of what is going on, which has to be a good one."""
        try:
            if self.settled.get(self._rest(name), True):
                return
            description = self._describe(name)
        except ServiceError as error:
            raise failure(error, self.service_name) from None
        raise ValueError(
            handler_message(description.get("FailureReason") or f"{self.kind} {name} is {description[self._status]}.")
        )

    def _check_config(self, name: str, request: Payload) -> None:
        """Wait for the end of an update; a failed one leaves an endpoint in service with the config that it had."""
        self._settle(name)
        wanted = request.get("EndpointConfigName")
        if wanted is None:
            return
        description = self._describe(name)
        if description["EndpointConfigName"] != wanted:
            reason = description.get("FailureReason") or "it went back to its previous endpoint config"
            raise ValueError(handler_message(f"The update of endpoint {name} failed: {reason}"))

    def _retag(self, arn: str, old: Payload, new: Payload) -> None:
        gone, changed = tag_changes(tag_map(old), tag_map(new))
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


def tag_map(properties: Payload) -> dict[str, str]:
    """The tags of a template, by key."""
    return {tag["Key"]: str(tag["Value"]) for tag in properties.get("Tags") or []}


def generated_name(stack_name: str, logical_id: str) -> str:
    """A name for what the template does not name: readable, unique, and equal to its lower case."""
    suffix = uuid.uuid4().hex[:12]
    stem = f"{stack_name[:24]}-{logical_id[:24]}"[: _NAME_LIMIT - len(suffix) - 1].strip("-")
    return f"{stem}-{suffix}".lower()


def handler_message(reason: str, code: str = "GeneralServiceException") -> str:
    """How CloudFormation words the failure of a resource."""
    return f'Resource handler returned message: "{reason}" (HandlerErrorCode: {code})'


def call(service: Service, operation: str, properties: Payload) -> Payload:
    """Make a request of a template's properties.

    Raises
    ------
    ValueError
        With the reason for a stack event.
    """
    request = coerce(properties, service.model.operation_model(operation).input_shape)
    try:
        return service.call(operation, request, caller())
    except ServiceError as error:
        raise failure(error, service.name) from None


def failure(error: ServiceError, service: str) -> ValueError:
    """An error of a service as the reason of a stack event; MiniStack takes the text of any exception."""
    title = {"sagemaker": "SageMaker", "application-autoscaling": "ApplicationAutoScaling"}[service]
    return ValueError(
        handler_message(f"{error.message} (Service: {title}, Status Code: {error.status}, Error Code: {error.code})")
    )
