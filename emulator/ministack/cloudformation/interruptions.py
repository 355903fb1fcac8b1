"""Stack operations that the end of the server cut off.

MiniStack forgets an operation when the server ends, which would leave the stack ``…_IN_PROGRESS`` for good. Here, what
an operation was called with is kept on the record of the stack while it runs, and so is saved with it. When the server
starts again, a create or an update that still had resources to make is rolled back, an update that only had to clean up
after itself does so, and a delete goes on.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from ministack.core.concurrency import run_reentrant
from ministack.core.responses import request_scope
from ministack.services.cloudformation import _stack_events, _stacks, changesets, handlers, provisioners, stacks
from ministack.services.cloudformation.provisioners import _REPLACING_PROPERTIES

from emulator.ministack.cloudformation import stack_rights
from emulator.ministack.cloudformation.resource_types import sagemaker_types
from emulator.ministack.cloudformation.resources import caller
from emulator.ministack.patching import around
from emulator.platform.awsapi import Payload, Service
from emulator.platform.errors import ServiceError

logger = logging.getLogger(__name__)

Stack = dict[str, Any]
Records = dict[str, dict[str, Any]]

_REASON = "The local AWS was stopped during the operation."
#: Where the record of a stack keeps what its operation was called with while it runs, and what that is.
_KEY = "_interrupted_operation"
_KEPT = ("template", "param_values", "tags", "is_update", "previous_stack", "retain_except_on_create", "imports")


def install() -> None:
    """Keep on the stack what its operation was called with, from the request for it to its end."""
    signature = inspect.signature(stacks._deploy_stack_async)

    # Neither of the first two is a coroutine function: what they keep has to be there before the request is answered,
    # not when the task comes to its turn.

    def deploy(inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Coroutine[Any, Any, None]:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        stack = _stacks[call.arguments["stack_name"]]
        events_before = len(_stack_events.get(call.arguments["stack_id"]) or [])
        stack["_actor"] = stack_rights.actor()
        stack[_KEY] = {"events_before": events_before, **{name: call.arguments[name] for name in _KEPT}}

        async def run() -> None:
            try:
                await inner(*args, **kwargs)
            finally:
                stack.pop(_KEY, None)

        return run()

    def delete(inner: Callable[..., Any], stack_name: str, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, None]:
        if (stack := _stacks.get(stack_name)) is not None:
            stack.update(StackStatus="DELETE_IN_PROGRESS", _actor=stack_rights.actor())
        return inner(stack_name, *args, **kwargs)  # type: ignore[no-any-return]

    def resolve_outputs(inner: Callable[..., Any], *args: Any) -> Any:
        resolved = inner(*args)
        if operation := (_stacks.get(args[-2]) or {}).get(_KEY):
            operation["all_made"] = True  # what is left is to clean up
        return resolved

    for module in (stacks, changesets, handlers):
        around(module, "_deploy_stack_async", deploy)
    for module in (stacks, handlers):
        around(module, "_delete_stack_async", delete)
    around(stacks, "_resolve_stack_outputs", resolve_outputs)


def recover(sagemaker: Service) -> None:
    """Bring every stack that was in the middle of something to an end; call it on the event loop, after the restore."""
    for (account, region, name), stack in list(_stacks._data.items()):
        status = stack.get("StackStatus", "")
        if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
            with request_scope(account, region):
                stacks._create_stack_task_in_region(_end(sagemaker, name, stack), stack, stack["StackId"])


async def _end(sagemaker: Service, name: str, stack: Stack) -> None:
    stack_id, status = stack["StackId"], stack["StackStatus"]
    stack_rights.resume(stack)
    # Kept until the end, for this server may die as well.
    operation = stack.get(_KEY) or {}
    previous = operation.get("previous_stack") or {}
    records: Records = stack.setdefault("_resources", {})
    before: Records = previous.get("_resources", {})

    logger.warning("stack %s: bringing to an end what the end of the server cut off (%s)", name, status)
    if not status.startswith("DELETE") and not operation:
        # A rollback that somebody had asked for: nothing is known of it, and it can be asked for again.
        status = "UPDATE_ROLLBACK_FAILED" if status.startswith("UPDATE") else "ROLLBACK_FAILED"
        stack.update(StackStatus=status, StackStatusReason=_REASON)
        stacks._add_event(stack_id, name, name, "AWS::CloudFormation::Stack", status, _REASON, stack_id)
        return
    all_made = operation.get("is_update") and operation.get("all_made")
    await run_reentrant(_delete_unrecorded, sagemaker, stack_id, records, {} if all_made else before)
    if status.startswith("DELETE"):
        await stacks._delete_stack_async(name, stack_id)
    elif all_made:
        call = {key: operation[key] for key in _KEPT}
        call["previous_stack"] = {**previous, "_resources": {**before, **records}}
        await stacks._deploy_stack_async(name, stack_id, disable_rollback=stack.get("DisableRollback", False), **call)
    else:
        for logical_id in _half_updated(stack_id, operation["events_before"]) & before.keys() & records.keys():
            records[logical_id] = _without_settable(records[logical_id])
        changed = [key for key, record in records.items() if record != before.get(key)]
        replaced = [key for key in changed if key in before and _identity(before[key]) != _identity(records[key])]
        tags = {"stack_tags": stack.get("Tags"), "previous_tags": previous.get("Tags")}
        failed = {**operation, "created": changed, "replaced_ids": replaced, **tags}
        await stacks._roll_back_operation(name, stack_id, stack, failed, reason_override=_REASON)
    stack.pop(_KEY, None)


def _half_updated(stack_id: str, events_before: int) -> set[str]:
    """The resources whose update, or whose way back, did not come to its end."""
    events = (_stack_events.get(stack_id) or [])[events_before:]
    last = {event["LogicalResourceId"]: event["ResourceStatus"] for event in events}
    return {logical_id for logical_id, status in last.items() if status in ("UPDATE_IN_PROGRESS", "UPDATE_FAILED")}


def _without_settable(record: dict[str, Any]) -> dict[str, Any]:
    """The record of a resource whose properties may be any, so that a rollback sets all that can be set."""
    fixed = _REPLACING_PROPERTIES.get(record["ResourceType"], ())
    return {**record, "Properties": {key: value for key, value in record["Properties"].items() if key in fixed}}


def _identity(record: dict[str, Any]) -> str:
    return str(record["PhysicalResourceId"])


def _delete_unrecorded(sagemaker: Service, stack_id: str, *recorded: Records) -> None:
    """Delete what the stack had made but has no record of; its tags tell whose it is."""
    kept = {_identity(record) for records in recorded for record in records.values()}
    # Made last, deleted first: a resource comes after those that it refers to.
    for resource in reversed(sagemaker_types(sagemaker)):
        for arn in list(_arns(sagemaker, resource.kind)):
            try:
                tags = sagemaker.call("ListTags", {"ResourceArn": arn}, caller())["Tags"]
            except ServiceError:  # another stack's end has deleted it meanwhile
                continue
            owner = {tag["Key"]: tag["Value"] for tag in tags}.get("aws:cloudformation:stack-id")
            if owner == stack_id and arn not in kept:
                logger.warning("%s was made for %s, which has no record of it: deleting it", arn, stack_id)
                try:
                    provisioners._delete_resource(resource.type_name, arn, {})
                except ValueError as error:
                    logger.warning("%s is left: %s", arn, error)


def _arns(sagemaker: Service, kind: str) -> Iterator[str]:
    request: Payload | None = {}
    while request is not None:
        page = sagemaker.call(f"List{kind}s", request, caller())
        (summaries,) = (found for found in page.values() if isinstance(found, list))  # named otherwise than the kind
        yield from (summary[f"{kind}Arn"] for summary in summaries)
        request = {"NextToken": page["NextToken"]} if page.get("NextToken") else None
