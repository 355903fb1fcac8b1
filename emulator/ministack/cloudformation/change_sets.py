"""Change sets that change nothing but a stack's outputs.

MiniStack compares resources only, and says of such a change set that there are no changes. On AWS it can be executed.
It must be: an export that another stack is about to import is such a change, and the CDK deploys one after the other.
"""

from __future__ import annotations

import functools
from typing import Any

_NO_CHANGES = "The submitted information didn't contain changes."


def install() -> None:
    """Let new outputs count as a change."""
    from ministack.services.cloudformation import _change_sets, _stacks, handlers

    create = handlers._ACTION_HANDLERS["CreateChangeSet"]

    @functools.wraps(create)
    def create_change_set(params: Any) -> Any:
        before = set(_change_sets)
        response = create(params)
        for identifier in set(_change_sets) - before:
            change_set = _change_sets[identifier]
            stack = _stacks.get(change_set["StackName"]) or {}
            if (
                change_set["ChangeSetType"] == "UPDATE"
                and change_set["StatusReason"].startswith(_NO_CHANGES)
                and _outputs(change_set) != _outputs(stack)
            ):
                change_set.update(Status="CREATE_COMPLETE", ExecutionStatus="AVAILABLE", StatusReason="")
        return response

    handlers._ACTION_HANDLERS["CreateChangeSet"] = create_change_set


def _outputs(record: dict[str, Any]) -> dict[str, Any]:
    outputs: dict[str, Any] = record.get("_template", {}).get("Outputs", {})
    return outputs
