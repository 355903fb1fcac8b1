"""Exports that are in use: CloudFormation does not take them away, MiniStack's does."""

from __future__ import annotations

import functools
from typing import Any

Exports = dict[str, dict[str, Any]]

#: Statuses of stacks that have nothing, and import nothing.
_EMPTY = ("DELETE_COMPLETE", "REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE")


def install() -> None:
    """Keep exports that are in use."""
    _guard_exports()
    _cancel_deletes()


def _importer(export: str) -> str | None:
    """The name of a stack that imports an export."""
    from ministack.services.cloudformation import _stacks, handlers

    for name, stack in _stacks.items():
        if stack["StackStatus"] not in _EMPTY and export in handlers._imported_export_names(stack, name):
            return str(name)
    return None


def _exports_of(stack_id: str) -> Exports:
    from ministack.services.cloudformation import _exports

    return {name: export for name, export in _exports.items() if export["StackId"] == stack_id}


def _guard_exports() -> None:
    """Fail an update that takes an export from a stack that uses it, and forget exports that an update removes.

    Outputs are resolved when every resource of the update is done and nothing is cleaned up yet, which is when AWS
    finds this out as well.
    """
    from ministack.services.cloudformation import _exports, _stacks, stacks

    resolve = stacks._resolve_stack_outputs

    @functools.wraps(resolve)
    def resolve_stack_outputs(*args: Any) -> tuple[list[dict[str, Any]], Exports]:
        outputs, new = resolve(*args)
        stack_id: str = args[-1]
        old = _exports_of(stack_id)
        for name, export in new.items():
            owner = (_exports.get(name) or export)["StackId"]
            if owner != stack_id:
                other = next(stack["StackName"] for stack in _stacks.values() if stack["StackId"] == owner)
                raise ValueError(f"Export with name {name} is already exported by stack {other}.")
        for name, export in old.items():
            if name not in new and (user := _importer(name)):
                raise ValueError(_cannot_delete(name, user))
            if name in new and new[name]["Value"] != export["Value"] and (user := _importer(name)):
                raise ValueError(f"Export {name} cannot be updated as it is in use by {user}")
        for name in old.keys() - new.keys():
            _exports.pop(name)
        return outputs, new

    stacks._resolve_stack_outputs = resolve_stack_outputs


def _cannot_delete(export: str, user: str) -> str:
    return f"Delete canceled. Cannot delete export {export} as it is in use by {user}."


def _cancel_deletes() -> None:
    """Take a DeleteStack whose exports are in use, as AWS does, and leave the stack as it was, with the reason."""
    from ministack.services.cloudformation import handlers, stacks

    delete = handlers._ACTION_HANDLERS["DeleteStack"]

    @functools.wraps(delete)
    def delete_stack(params: Any) -> Any:
        stack = handlers._resolve_stack(handlers._p(params, "StackName"))
        if stack is None or stack["StackStatus"] == "DELETE_COMPLETE" or stack.get("EnableTerminationProtection"):
            return delete(params)
        used = ((name, user) for name in _exports_of(stack["StackId"]) if (user := _importer(name)))
        if (found := next(used, None)) is None:
            return delete(params)
        stack["StackStatusReason"] = _cannot_delete(*found)
        name, stack_id = stack["StackName"], stack["StackId"]
        for status, reason in (("DELETE_IN_PROGRESS", ""), (stack["StackStatus"], stack["StackStatusReason"])):
            stacks._add_event(stack_id, name, name, "AWS::CloudFormation::Stack", status, reason, stack_id)
        return handlers._xml(200, "DeleteStackResponse", "")

    handlers._ACTION_HANDLERS["DeleteStack"] = delete_stack
