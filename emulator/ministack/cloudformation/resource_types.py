"""The CloudFormation types that MiniStack lacks."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emulator.ministack.cloudformation.resources import Created, NamedResource, Services, caller, generated_name
from emulator.ministack.cloudformation.scaling_resources import ScalableTarget, ScalingPolicy
from emulator.platform.awsapi import Payload

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordOnly:
    """A type that has no effect here: the stack has it, and nothing else."""

    type_name: str

    replacing_properties = ()

    def create(self, logical_id: str, properties: Payload, stack_name: str) -> Created:
        return self._made(generated_name(stack_name, logical_id))

    def update(self, identity: str, old: Payload, new: Payload, stack_name: str, logical_id: str) -> Created:
        return self._made(identity)

    def delete(self, identity: str, properties: Payload) -> None:
        logger.debug("%s %s was only on record", self.type_name, identity)

    def _made(self, identity: str) -> Created:
        service = self.type_name.split("::")[1].lower()
        arn = f"arn:aws:{service}:{caller().region}:{caller().account}:{identity}"
        return identity, {"Id": identity, "Arn": arn}


#: Types of which a stack keeps a record here and nothing more.
RECORD_ONLY = (
    "AWS::Budgets::Budget",
    "AWS::CloudTrail::Trail",
    "AWS::CloudWatch::AnomalyDetector",
    "AWS::CloudWatch::CompositeAlarm",
)


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

    Notes
    -----
    The types block until what they make is in service, so they run on a thread: an endpoint fetches its model from
    the S3 of this very server, whose event loop must go on.
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
