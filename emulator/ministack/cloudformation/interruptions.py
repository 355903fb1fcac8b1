"""Stack operations that the end of the server cut off.

CloudFormation never leaves a stack half-way. MiniStack runs an operation as a task of its event loop and forgets it
when the server ends, which would leave the stack ``…_IN_PROGRESS`` for good: no further deploy, no destroy. Here, what
an operation was called with is kept on the record of the stack while it runs, and so is saved with it. When the server
starts again,

- a create or an update that still had resources to make is rolled back,
- an update that only had to clean up after itself does so,
- a delete goes on.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from emulator.ministack.cloudformation import stack_rights
from emulator.ministack.cloudformation.resource_types import resource_types
from emulator.ministack.cloudformation.resources import NamedResource, Services, caller
from emulator.platform.awsapi import Service

logger = logging.getLogger(__name__)

Stack = dict[str, Any]
Records = dict[str, dict[str, Any]]

_REASON = "The local AWS was stopped during the operation."
#: Where the record of a stack keeps what its operation was called with while it runs, and what that is.
_KEY = "_interrupted_operation"
_KEPT = ("template", "param_values", "tags", "is_update", "previous_stack", "retain_except_on_create", "imports")


def install() -> None:
    """Keep on the stack what its operation was called with, from the request for it to its end."""
    from ministack.services.cloudformation import _stack_events, _stacks, changesets, handlers, stacks

    deploy, delete = stacks._deploy_stack_async, stacks._delete_stack_async
    signature = inspect.signature(deploy)

    # Neither is a coroutine function: what they keep has to be there before the request is answered, not when the
    # task comes to its turn.

    @functools.wraps(deploy)
    def deploy_stack(*args: Any, **kwargs: Any) -> Coroutine[Any, Any, None]:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        stack = _stacks[call.arguments["stack_name"]]
        events_before = len(_stack_events.get(call.arguments["stack_id"]) or [])
        stack["_actor"] = stack_rights.actor()
        stack[_KEY] = {"events_before": events_before, **{name: call.arguments[name] for name in _KEPT}}

        async def run() -> None:
            try:
                await deploy(*args, **kwargs)
            finally:
                stack.pop(_KEY, None)

        return run()

    @functools.wraps(delete)
    def delete_stack(stack_name: str, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, None]:
        if (stack := _stacks.get(stack_name)) is not None:
            stack.update(StackStatus="DELETE_IN_PROGRESS", _actor=stack_rights.actor())
        return delete(stack_name, *args, **kwargs)

    for module in (stacks, changesets, handlers):
        module._deploy_stack_async = deploy_stack
    for module in (stacks, handlers):
        module._delete_stack_async = delete_stack


def recover(services: Services) -> None:
    """Bring every stack that was in the middle of something to an end; call it on the event loop, after the restore.

    Parameters
    ----------
    services
        Ours, in which a resource may exist that its stack had not yet put on record.
    """
    from ministack.core.responses import request_scope
    from ministack.services.cloudformation import _stacks, stacks

    for (account, region, name), stack in list(_stacks._data.items()):
        status = stack.get("StackStatus", "")
        if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
            with request_scope(account, region):
                stacks._create_stack_task_in_region(_end(services, name, stack), stack, stack["StackId"])


async def _end(services: Services, name: str, stack: Stack) -> None:
    """Do what is left to do for a stack."""
    from ministack.core.concurrency import run_reentrant
    from ministack.services.cloudformation import stacks

    stack_id, status = stack["StackId"], stack["StackStatus"]
    stack_rights.resume(stack)
    # Kept until the end, for this server may die as well.
    operation = stack.get(_KEY) or {}
    previous_stack = operation.get("previous_stack") or {}
    records: Records = stack.setdefault("_resources", {})
    before: Records = previous_stack.get("_resources", {})
    started, completed = _progress(stack_id, operation.get("events_before", 0))

    if status.startswith("DELETE"):
        logger.warning("stack %s: going on with its deletion", name)
        await run_reentrant(_delete_unrecorded, services, stack_id, records)
        await stacks._delete_stack_async(name, stack_id)
    elif not operation:
        _give_up(name, stack)
    elif operation["is_update"] and set(_wanted(operation)) <= completed:
        logger.warning("stack %s: finishing its update", name)
        await run_reentrant(_delete_unrecorded, services, stack_id, records)
        await stacks._deploy_stack_async(
            name,
            stack_id,
            operation["template"],
            operation["param_values"],
            stack.get("DisableRollback", False),
            operation["tags"],
            is_update=True,
            previous_stack={**previous_stack, "_resources": {**before, **records}},
        )
    else:
        logger.warning("stack %s: rolling back what the end of the server cut off (%s)", name, status)
        await run_reentrant(_delete_unrecorded, services, stack_id, before, records)
        for logical_id in started - completed:
            if logical_id in before and logical_id in records:
                records[logical_id] = _partly_updated(records[logical_id])
        failed = _failed_operation(operation, stack, records, before)
        await stacks._roll_back_operation(name, stack_id, stack, failed, reason_override=_REASON)
    stack.pop(_KEY, None)


def _give_up(name: str, stack: Stack) -> None:
    """End a rollback that somebody had asked for: nothing is known of it, so it can be asked for again."""
    from ministack.services.cloudformation import stacks

    status = "UPDATE_ROLLBACK_FAILED" if stack["StackStatus"].startswith("UPDATE") else "ROLLBACK_FAILED"
    logger.warning("stack %s: %s was cut off, now %s", name, stack["StackStatus"], status)
    stack.update(StackStatus=status, StackStatusReason=_REASON)
    stacks._add_event(stack["StackId"], name, name, "AWS::CloudFormation::Stack", status, _REASON, stack["StackId"])


def _progress(stack_id: str, events_before: int) -> tuple[set[str], set[str]]:
    """The resources that the operation had started with, and those that it was through with."""
    from ministack.services.cloudformation import _stack_events

    started, completed = set(), set()
    for event in (_stack_events.get(stack_id) or [])[events_before:]:
        if event["ResourceStatus"] in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS"):
            started.add(event["LogicalResourceId"])
        elif event["ResourceStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            completed.add(event["LogicalResourceId"])
    return started, completed


def _wanted(operation: Mapping[str, Any]) -> list[str]:
    """The resources of the operation's template, less those whose condition is false."""
    from ministack.services.cloudformation.engine import _evaluate_conditions

    template = operation["template"]
    conditions = _evaluate_conditions(template, operation["param_values"])
    resources = template.get("Resources", {})
    return [key for key, resource in resources.items() if conditions.get(resource.get("Condition"), True)]


def _partly_updated(record: dict[str, Any]) -> dict[str, Any]:
    """The record of a resource whose update was cut off: it may be anything, so a rollback sets all that can be set."""
    from ministack.services.cloudformation.provisioners import _REPLACING_PROPERTIES

    fixed = _REPLACING_PROPERTIES.get(record["ResourceType"], ())
    return {**record, "Properties": {key: value for key, value in record["Properties"].items() if key in fixed}}


def _failed_operation(operation: Mapping[str, Any], stack: Stack, records: Records, before: Records) -> dict[str, Any]:
    """What MiniStack's rollback wants to know."""
    from ministack.services.cloudformation import stacks

    changed = [key for key, record in records.items() if record != before.get(key)]
    replaced = [key for key in changed if key in before and _identity(before[key]) != _identity(records[key])]
    previous_stack = operation.get("previous_stack")
    return stacks._failed_operation(
        is_update=operation.get("is_update", False),
        previous_stack=previous_stack,
        created=changed,
        failed_update=None,
        failed_logical_id=None,
        replaced_ids=replaced,
        cancelled=False,
        template=operation.get("template") or stack.get("_template") or {},
        param_values=operation.get("param_values") or {},
        retain_except_on_create=operation.get("retain_except_on_create", False),
        stack_tags=stack.get("Tags"),
        previous_tags=(previous_stack or {}).get("Tags"),
        imports=operation.get("imports"),
    )


def _identity(record: Mapping[str, Any]) -> str:
    return str(record["PhysicalResourceId"])


def _delete_unrecorded(services: Services, stack_id: str, *recorded: Records) -> None:
    """Delete what the stack had made but has no record of; its tags tell whose it is."""
    from ministack.services.cloudformation import provisioners

    sagemaker = services["sagemaker"]
    kept = {_identity(record) for records in recorded for record in records.values()}
    # Made last, deleted first: a resource comes after those that it refers to.
    for resource in reversed([made for made in resource_types(services) if isinstance(made, NamedResource)]):
        for arn in _arns(sagemaker, resource.kind):
            tags = sagemaker.call("ListTags", {"ResourceArn": arn}, caller())["Tags"]
            owner = {tag["Key"]: tag["Value"] for tag in tags}.get("aws:cloudformation:stack-id")
            if owner == stack_id and arn not in kept:
                logger.warning("%s was made for %s, which has no record of it: deleting it", arn, stack_id)
                try:
                    provisioners._delete_resource(resource.type_name, arn, {})
                except ValueError as error:
                    logger.warning("%s is left: %s", arn, error)


def _arns(sagemaker: Service, kind: str) -> list[str]:
    """Every resource of a kind."""
    found: list[str] = []
    request: dict[str, Any] = {}
    while True:
        page = sagemaker.call(f"List{kind}s", request, caller())
        found += [summary[f"{kind}Arn"] for summary in page[f"{kind}s"]]
        if not page.get("NextToken"):
            return found
        request = {"NextToken": page["NextToken"]}
