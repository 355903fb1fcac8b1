"""A stack does not take over what is there already under the name that its template gives."""

from __future__ import annotations

import functools
from typing import Any

from emulator.ministack.cloudformation.resources import handler_message


def install() -> None:
    """Refuse to create a resource whose name is taken, where MiniStack's CloudFormation would write over it."""
    from ministack.services import cloudwatch, cloudwatch_logs, ecr, iam, lambda_svc
    from ministack.services.cloudformation import stacks

    named = {
        "AWS::CloudWatch::Alarm": ("AlarmName", cloudwatch._alarms),
        "AWS::ECR::Repository": ("RepositoryName", ecr._repositories),
        "AWS::IAM::Role": ("RoleName", iam._roles),
        "AWS::Lambda::Function": ("FunctionName", lambda_svc._functions),
        "AWS::Logs::LogGroup": ("LogGroupName", cloudwatch_logs._log_groups),
    }
    provision = stacks._provision_resource

    @functools.wraps(provision)
    def provision_resource(resource_type: str, logical_id: str, properties: Any, stack_name: str) -> Any:
        member, store = named.get(resource_type, ("", {}))
        if (name := properties.get(member)) and name in store:
            reason = f"Resource of type '{resource_type}' with identifier '{name}' already exists."
            raise ValueError(handler_message(reason, "AlreadyExists"))
        return provision(resource_type, logical_id, properties, stack_name)

    stacks._provision_resource = provision_resource
