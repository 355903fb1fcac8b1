"""Rules of CloudFormation that MiniStack's does not have: exports in use, names that are taken, states, change sets.

And what it leaves out: permissions boundaries of roles, expiry of tables' items, and properties that it does not read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ministack.core.responses import new_uuid
from ministack.services import cloudwatch, cloudwatch_logs, dynamodb, ecr, iam, lambda_svc
from ministack.services.cloudformation import _change_sets, _exports, _stacks, engine, handlers, provisioners, stacks
from ministack.services.cloudformation.changesets import _find_change_set

from emulator.ministack.cloudformation import custom_resources, schemas, template_rules
from emulator.ministack.cloudformation.resources import handler_message
from emulator.ministack.functions.corrections import wrap_handlers
from emulator.ministack.patching import around, within_time
from emulator.platform.validation import section

Exports = dict[str, dict[str, Any]]

_NO_CHANGES = "The submitted information didn't contain changes."
#: Statuses of stacks that have nothing, and import nothing.
_EMPTY = ("DELETE_COMPLETE", "REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE")
#: Statuses in which a stack takes no change, whatever else is over.
_ENDS = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "UPDATE_ROLLBACK_FAILED", "DELETE_FAILED")
#: What an event says of a failed validation, and what the change set says of its kind.
_KIND = ("VALIDATION_ERROR", "CREATE_CHANGESET")
_EVENT = ("LogicalResourceId", "ResourceType", "ValidationName", "ValidationPath", "ValidationStatusReason")
_CHECKS = {
    "PROPERTY_VALIDATION": "AWS::EarlyValidation::PropertyValidation",
    "NAME_CONFLICT_VALIDATION": "AWS::EarlyValidation::ResourceExistenceCheck",
}
_INVALID = (
    "The following hook(s)/validation failed: [{}]. To troubleshoot Early Validation errors, use the DescribeEvents "
    "API for detailed failure information."
)


def install() -> None:
    custom_resources.install()
    template_rules.install()
    wrap_handlers("AWS::IAM::Role", _check_boundary, _set_boundary)
    wrap_handlers("AWS::IAM::ManagedPolicy", before=lambda name, of: provisioners._iam_policy_require_entities(of))
    wrap_handlers("AWS::DynamoDB::Table", after=_set_expiry)
    in_state = [(operation, _in_state) for operation in ("CreateChangeSet", "ExecuteChangeSet", "UpdateStack")]
    made = [("CreateChangeSet", _create_change_set), ("CreateStack", _create_stack)]
    for operation, replacement in (*made, ("DescribeEvents", _describe_events), *in_state):
        handlers._ACTION_HANDLERS[operation] = functools.partial(replacement, handlers._ACTION_HANDLERS[operation])
    around(engine, "_check_parameter_constraints", within_time)
    for module in (provisioners, stacks):  # for nested stacks, and for others
        around(module, "_provision_resource", _provision_resource)
        around(module, "_update_resource", _update_resource)
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
        if change_set["Status"] == "CREATE_COMPLETE" and not change_set["_disable_validation"]:
            _fail_invalid(change_set)
        unchanged = change_set["ChangeSetType"] == "UPDATE" and change_set["StatusReason"].startswith(_NO_CHANGES)
        if unchanged and outputs(change_set) != outputs(_stacks.get(change_set["StackName"]) or {}):
            change_set.update(Status="CREATE_COMPLETE", ExecutionStatus="AVAILABLE", StatusReason="")
    return response


def _fail_invalid(change_set: dict[str, Any]) -> None:
    """Fail a change set whose properties cannot be valid; events of its operation say why."""
    template, parameters, stack_id = (change_set[name] for name in ("_template", "_resolved_params", "StackId"))
    stack, conditions = _stacks[change_set["StackName"]], engine._evaluate_conditions(template, parameters)
    live = [name for name, of in template["Resources"].items() if conditions.get(of.get("Condition"), True)]
    known = (parameters, conditions, template.get("Mappings", {}), change_set["StackName"], stack_id)
    imported = (each["ResourceIdentifier"] for each in change_set["_resources_to_import"])
    own = {resource["PhysicalResourceId"] for resource in stack["_resources"].values()}
    own.update(*(identity.values() for identity in (*change_set["_import_existing"].values(), *imported)))
    with stacks._stack_region_context(stack, stack_id):
        errors = stacks._validation_errors(template["Resources"], live, *known, own)
    if errors:
        operation, said = new_uuid(), {"ValidationFailureMode": "FAIL", "ValidationStatus": "FAILED"}
        stack["_operation_events"] = [
            stacks._operation_event(stack_id, operation, *_KIND, **said, **dict(zip(_EVENT, error, strict=True)))
            for error in errors
        ]
        reason = _INVALID.format(", ".join(dict.fromkeys(_CHECKS[error[2]] for error in errors)))
        change_set.update(Status="FAILED", ExecutionStatus="UNAVAILABLE", StatusReason=reason, _operation=operation)


def _describe_events(inner: Callable[[Any], Any], params: Any) -> Any:
    """Give the events of a change set, which MiniStack does not tell from those of its stack."""
    _, found = _find_change_set(handlers._p(params, "ChangeSetName"), handlers._p(params, "StackName"))
    if found:
        params = {**params, "StackName": [found["StackId"]], "OperationId": [found.get("_operation", "none")]}
    return inner(params)


def _in_state(inner: Callable[[Any], Any], params: Any) -> Any:
    """Refuse to change a stack that is at something else, or has come to an end that takes no changes."""
    name, called = handlers._p(params, "StackName"), handlers._p(params, "ChangeSetName")
    kind, (_, found) = handlers._p(params, "ChangeSetType", "UPDATE"), _find_change_set(called, name)
    stack = handlers._resolve_stack(found["StackId"] if found else name) or {}
    status = stack.get("StackStatus", "DELETE_COMPLETE")
    wrong = f"Stack:{stack.get('StackId')} is in {status} state and can not be updated."
    if kind == "CREATE" and status not in ("DELETE_COMPLETE", "REVIEW_IN_PROGRESS"):
        wrong = f"Stack [{name}] already exists and cannot be created again with the changeSet [{called}]."
    elif kind == "UPDATE" and status == "REVIEW_IN_PROGRESS" and not found:
        wrong = f"Stack [{name}] does not exist"
    elif status not in _ENDS and (status == "REVIEW_IN_PROGRESS" or not status.endswith("_IN_PROGRESS")):
        return inner(params)
    return handlers._error("ValidationError", wrong)


def _create_stack(inner: Callable[[Any], Any], params: Any) -> Any:
    """Refuse the name of a stack that is rolled back, which has to be deleted first."""
    stack = handlers._resolve_stack(name := handlers._p(params, "StackName")) or {}
    taken = stack.get("StackStatus") == "ROLLBACK_COMPLETE"
    return handlers._error("AlreadyExistsException", f"Stack [{name}] already exists") if taken else inner(params)


def _provision_resource(
    inner: Callable[..., Any], resource_type: str, logical_id: str, properties: Any, stack_name: str
) -> Any:
    """Refuse to create a resource whose name is taken, where MiniStack's CloudFormation would write over it."""
    properties = _judged(resource_type, logical_id, properties)
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


def _update_resource(inner: Callable[..., Any], kind: str, identity: str, old: Any, new: Any, *rest: Any) -> Any:
    return inner(kind, identity, schemas.coerced(kind, old), _judged(kind, rest[1], new), *rest)


def _judged(resource_type: str, logical_id: str, properties: Any) -> Any:
    """Give properties the types of their schema, or refuse them; tags are judged before CloudFormation adds its own."""
    properties = schemas.coerced(resource_type, properties)
    tags = provisioners._STACK_TAG_PROPERTY.get(resource_type, ("-",))[0]
    if wrong := [why for at, why in schemas.problems(resource_type, properties) if not at.startswith(f"/{tags}")]:
        raise ValueError(f"Properties validation failed for resource {logical_id} with message: {' '.join(wrong)}")
    for name, value in properties.items():
        fate = section("templates", resource_type).get(name)
        if fate and fate.kind == "refused" and value not in fate.but and str(value).lower() != "false":
            raise ValueError(handler_message(f"The local AWS has no {name} of {resource_type}: {fate.text}."))
    return properties


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
