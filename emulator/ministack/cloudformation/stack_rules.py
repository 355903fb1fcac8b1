"""Rules of CloudFormation that MiniStack's does not have: exports in use, names that are taken, changed outputs.

And what it leaves out: permissions boundaries of roles, expiry of tables' items, and properties that it does not read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ministack.services import cloudwatch, cloudwatch_logs, dynamodb, ecr, iam, lambda_svc
from ministack.services.cloudformation import _change_sets, _exports, _stacks, engine, handlers, stacks

from emulator.ministack.cloudformation import custom_resources, template_rules
from emulator.ministack.cloudformation.resources import handler_message
from emulator.ministack.functions.corrections import wrap_handlers
from emulator.ministack.patching import around, within_time
from emulator.platform.validation import section

Exports = dict[str, dict[str, Any]]

_NO_CHANGES = "The submitted information didn't contain changes."
#: Statuses of stacks that have nothing, and import nothing.
_EMPTY = ("DELETE_COMPLETE", "REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE")


def install() -> None:
    custom_resources.install()
    template_rules.install()
    wrap_handlers("AWS::IAM::Role", _check_boundary, _set_boundary)
    wrap_handlers("AWS::DynamoDB::Table", after=_set_expiry)
    for operation, replacement in (("CreateChangeSet", _create_change_set), ("CreateStack", _create_stack)):
        handlers._ACTION_HANDLERS[operation] = functools.partial(replacement, handlers._ACTION_HANDLERS[operation])
    around(engine, "_check_parameter_constraints", within_time)
    around(stacks, "_provision_resource", _provision_resource)
    around(stacks, "_update_resource", _update_resource)
    around(stacks, "_resolve_stack_outputs", _resolve_stack_outputs)


def _check_boundary(name: str, properties: Any) -> None:
    boundary = properties.get("PermissionsBoundary")
    if boundary and not iam._policy_exists(boundary):
        raise ValueError(handler_message(f"Scope ARN: {boundary} does not exist or is not attachable.", "NotFound"))


def _set_boundary(name: str, attributes: Any, properties: Any) -> Any:
    iam._roles[name]["PermissionsBoundary"] = properties.get("PermissionsBoundary")
    return attributes


def _set_expiry(name: str, attributes: Any, properties: Any) -> Any:
    dynamodb._ttl_settings.pop(name, None)
    if asked := properties.get("TimeToLiveSpecification"):
        dynamodb._update_ttl({"TableName": name, "TimeToLiveSpecification": asked})
    return attributes


def _create_change_set(inner: Callable[[Any], Any], params: Any) -> Any:
    """Let a change set of nothing but outputs be executed, as on AWS.

    An export that another stack is about to import is such a change, and the CDK deploys one after the other.
    """

    def outputs(record: dict[str, Any]) -> Any:
        return record.get("_template", {}).get("Outputs", {})

    before = set(_change_sets)
    response = inner(params)
    for identifier in set(_change_sets) - before:
        change_set = _change_sets[identifier]
        unchanged = change_set["ChangeSetType"] == "UPDATE" and change_set["StatusReason"].startswith(_NO_CHANGES)
        if unchanged and outputs(change_set) != outputs(_stacks.get(change_set["StackName"]) or {}):
            change_set.update(Status="CREATE_COMPLETE", ExecutionStatus="AVAILABLE", StatusReason="")
    return response


def _create_stack(inner: Callable[[Any], Any], params: Any) -> Any:
    """Refuse the name of a stack that is rolled back, which has to be deleted first."""
    stack = handlers._resolve_stack(name := handlers._p(params, "StackName")) or {}
    taken = stack.get("StackStatus") == "ROLLBACK_COMPLETE"
    return handlers._error("AlreadyExistsException", f"Stack [{name}] already exists") if taken else inner(params)


def _provision_resource(
    inner: Callable[..., Any], resource_type: str, logical_id: str, properties: Any, stack_name: str
) -> Any:
    """Refuse to create a resource whose name is taken, where MiniStack's CloudFormation would write over it."""
    _refuse_unread(resource_type, properties)
    named = {
        "AWS::CloudWatch::Alarm": ("AlarmName", cloudwatch._alarms),
        "AWS::ECR::Repository": ("RepositoryName", ecr._repositories),
        "AWS::IAM::Role": ("RoleName", iam._roles),
        "AWS::Lambda::Function": ("FunctionName", lambda_svc._functions),
        "AWS::Logs::LogGroup": ("LogGroupName", cloudwatch_logs._log_groups),
    }
    member, store = named.get(resource_type, ("", {}))
    if (name := properties.get(member)) and name in store:
        reason = f"Resource of type '{resource_type}' with identifier '{name}' already exists."
        raise ValueError(handler_message(reason, "AlreadyExists"))
    return inner(resource_type, logical_id, properties, stack_name)


def _update_resource(
    inner: Callable[..., Any], resource_type: str, identity: str, old: Any, new: Any, *rest: Any
) -> Any:
    _refuse_unread(resource_type, new)
    return inner(resource_type, identity, old, new, *rest)


def _refuse_unread(resource_type: str, properties: Any) -> None:
    for name, value in properties.items():
        fate = section("templates", resource_type).get(name)
        if fate and fate.kind == "refused" and value not in fate.but and str(value).lower() != "false":
            raise ValueError(handler_message(f"The local AWS has no {name} of {resource_type}: {fate.text}."))


def _resolve_stack_outputs(inner: Callable[..., tuple[Any, Exports]], *args: Any) -> tuple[Any, Exports]:
    """Fail an update that takes an export from a stack that uses it, and forget exports that an update removes.

    Outputs are resolved when every resource of the update is done and nothing is cleaned up yet, which is when AWS
    finds this out as well.
    """
    outputs, new = inner(*args)
    stack_id: str = args[-1]
    old = {name: export for name, export in _exports.items() if export["StackId"] == stack_id}
    for name, export in new.items():
        owner = (_exports.get(name) or export)["StackId"]
        if owner != stack_id:
            other = next(stack["StackName"] for stack in _stacks.values() if stack["StackId"] == owner)
            raise ValueError(f"Export with name {name} is already exported by stack {other}.")
    for name, export in old.items():
        if name not in new and (user := _importer(name)):
            raise ValueError(f"Delete canceled. Cannot delete export {name} as it is in use by {user}.")
        if name in new and new[name]["Value"] != export["Value"] and (user := _importer(name)):
            raise ValueError(f"Export {name} cannot be updated as it is in use by {user}")
    for name in old.keys() - new.keys():
        _exports.pop(name)
    return outputs, new


def _importer(export: str) -> str | None:
    for name, stack in _stacks.items():
        if stack["StackStatus"] not in _EMPTY and export in handlers._imported_export_names(stack, name):
            return str(name)
    return None
