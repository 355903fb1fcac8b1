"""The CloudFormation types that MiniStack lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ministack.services.cloudformation import provisioners, stacks

from emulator.ministack.cloudformation import network
from emulator.ministack.cloudformation.resources import (
    Created,
    NamedResource,
    ScalableTarget,
    ScalingPolicy,
    caller,
    generated_name,
)
from emulator.platform.awsapi import Payload, Service


@dataclass(frozen=True)
class RecordOnly:
    """A type that has no effect here: the stack has it, and nothing else."""

    type_name: str

    replacing_properties = ()

    def create(self, logical_id: str, properties: Payload, stack_name: str) -> Created:
        return self.update(generated_name(stack_name, logical_id))

    def update(self, identity: str, *_: Any) -> Created:
        service, owner = self.type_name.split("::")[1].lower(), caller()
        return identity, {"Id": identity, "Arn": f"arn:aws:{service}:{owner.region}:{owner.account}:{identity}"}

    def delete(self, identity: str, properties: Payload) -> None:
        """There is nothing to delete."""


#: Types of which a stack keeps a record here and nothing more.
RECORD_ONLY = (
    "AWS::Budgets::Budget",
    "AWS::CloudTrail::Trail",
    "AWS::CloudWatch::AnomalyDetector",
)


def sagemaker_types(sagemaker: Service) -> list[NamedResource]:
    """The types of SageMaker; a type comes after those that it refers to."""
    done = {"InService": True, "Failed": False}
    return [
        NamedResource(sagemaker, "Model"),
        NamedResource(sagemaker, "ModelPackageGroup"),
        NamedResource(sagemaker, "EndpointConfig"),
        NamedResource(
            sagemaker,
            "Endpoint",
            replacing=("EndpointName",),
            updated=("EndpointConfigName", "DeploymentConfig"),
            update_only=("RetainAllVariantProperties", "ExcludeRetainedVariantProperties", "RetainDeploymentConfig"),
            settled=done | {"UpdateRollbackFailed": False, "OutOfService": False},
        ),
        NamedResource(
            sagemaker,
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
            sagemaker,
            "NotebookInstanceLifecycleConfig",
            replacing=("NotebookInstanceLifecycleConfigName",),
            updated=("OnCreate", "OnStart"),
        ),
    ]


def install(services: Mapping[str, Service], checkpoint: Callable[[], None]) -> None:
    """Make the types known to MiniStack's CloudFormation.

    `checkpoint` is called before anything is made, changed or deleted, to save what the stack is about to do: our
    services save what they do at once, and after the death of the server the two must fit together.
    """
    scaling = services["application-autoscaling"]
    added: list[Any] = [*sagemaker_types(services["sagemaker"]), ScalableTarget(scaling), ScalingPolicy(scaling)]
    added += [*network.TYPES, *map(RecordOnly, RECORD_ONLY)]
    network.install()
    names = frozenset(resource.type_name for resource in added)
    for resource in added:
        changes = {name: _after(checkpoint, getattr(resource, name)) for name in ("create", "update", "delete")}
        provisioners._RESOURCE_HANDLERS[resource.type_name] = {**changes, "update_with_logical_id": True}
        provisioners._REPLACING_PROPERTIES[resource.type_name] = resource.replacing_properties
        if isinstance(resource, NamedResource) or getattr(resource, "named", "none") != "none":
            provisioners._STACK_TAG_PROPERTY[resource.type_name] = ("Tags", "list")

    # The types block until what they make is in service: an endpoint fetches its model from the S3 of this very server.
    blocks = stacks._runs_on_worker_thread
    stacks._runs_on_worker_thread = lambda resource_type: resource_type in names or blocks(resource_type)


def _after(first: Callable[[], None], then: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        first()
        return then(*args)

    return run
