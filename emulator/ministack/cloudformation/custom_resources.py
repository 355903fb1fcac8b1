"""Custom resources: whatever fails reaches the stack, and nothing waits for a response that cannot come any more."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from ministack.services import lambda_svc
from ministack.services.cloudformation import _stacks, custom_resource, handlers, stacks

from emulator.ministack.patching import around

logger = logging.getLogger(__name__)

#: How often Lambda calls a function that fails. AWS takes minutes between them, and CloudFormation then waits an hour.
_ATTEMPTS = 3
_THROTTLED_SECONDS = 0.5
_LONGEST_ID = 1024
_NO_RESPONSE = (
    "CloudFormation did not receive a response from your Custom Resource. Please check your logs for requestId [{}]. "
    "The function failed {} times: {}"
)
#: Where the record of a stack keeps the resources whose create failed, for its rollback.
_FAILED = "_failed_custom_resources"

#: The requests that wait for a response, by the end of their address; and the physical ids that came with a failure.
_requests: dict[str, dict[str, Any]] = {}
_made: dict[tuple[str, str], str] = {}


def install() -> None:
    around(lambda_svc, "_execute_function_with_config_scope", _execute)
    around(custom_resource, "deliver_response", _deliver)
    around(custom_resource, "invoke_custom_resource", _invoke)
    for module in (handlers, stacks):
        around(module, "_roll_back_operation", _roll_back_operation)


def release() -> None:
    """End the operations that wait for a response, with the server; the next one rolls their stacks back."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()  # first, or the missing response would begin a rollback here
    for token, entry in list(custom_resource._pending.items()):
        if event := _requests.pop(token, None):
            logger.warning("no response yet of %s of %s: not waited for", event["LogicalResourceId"], event["StackId"])
        entry["event"].set()


def fail(path: str, reason: str) -> None:
    """Fail the request whose response goes to an address."""
    custom_resource.deliver_response(path.rpartition("/")[2], {"Status": "FAILED", "Reason": reason, "ours": True})


def _execute(inner: Callable[..., Any], function: Any, event: Any) -> Any:
    """Call the function of a custom resource as an asynchronous invocation does; any other as it is called."""
    token = str(event.get("ResponseURL")).rpartition("/")[2] if isinstance(event, dict) else ""
    if token not in custom_resource._pending or token in _requests:
        return inner(function, event)
    _requests[token] = event
    call = contextvars.copy_context().run
    threading.Thread(target=call, args=(_attempt, inner, function, event, token), daemon=True).start()
    return None


def _attempt(inner: Callable[..., Any], function: Any, event: dict[str, Any], token: str) -> None:
    attempts, body = 0, None
    while attempts < _ATTEMPTS:
        entry = custom_resource._pending.get(token)
        if entry is None or entry["event"].is_set():
            return
        result = inner(function, event)
        if result.get("throttle"):
            entry["event"].wait(_THROTTLED_SECONDS)
        elif result.get("error"):
            attempts, body = attempts + 1, result.get("body")
        else:
            return  # another program may have been given the address
    failure = body.get("errorMessage") if isinstance(body, dict) else body
    fail(token, _NO_RESPONSE.format(event["RequestId"], attempts, failure))


def _deliver(inner: Callable[..., bool], token: str, response: Any) -> bool:
    """Take the first response to a request, as a failure unless it is well-formed."""
    if (event := _requests.pop(token, None)) is None:
        return False
    identity = response.get("PhysicalResourceId") if isinstance(response, dict) else None
    identity = identity if isinstance(identity, str) and 0 < len(identity) <= _LONGEST_ID else None
    problem = _problem(response, event, identity)
    if identity and (problem or response["Status"] == "FAILED"):
        _made[event["StackId"], event["LogicalResourceId"]] = identity
    return inner(token, {"Status": "FAILED", "Reason": problem} if problem else response)


def _problem(response: Any, event: dict[str, Any], identity: str | None) -> str | None:
    if not isinstance(response, dict) or not response:  # what is no JSON arrives as an empty object
        return "Invalid Response object: it is no JSON object with members"
    if response.get("ours"):
        return str(response["Reason"])
    if (status := response.get("Status")) not in ("SUCCESS", "FAILED"):
        return f"Invalid Response object: {status!r} is not a valid ResponseStatus"
    if identity is None:
        return "Invalid PhysicalResourceId"
    for name in ("StackId", "RequestId", "LogicalResourceId"):
        if response.get(name) != event[name]:
            return f"Invalid Response object: {name} has to be copied from the request"
    if not isinstance(response.get("Data") or {}, dict):
        return "Invalid Response object: Data has to be a JSON object"
    if status == "FAILED":
        reason = f"{response.get('Reason')} (RequestId: {event['RequestId']})"
        return f"Received response status [FAILED] from custom resource. Message returned: {reason}"
    return None


def _invoke(
    inner: Callable[..., Any], kind: str, name: str, properties: Any, stack: str, stack_id: str, *args: Any, **more: Any
) -> Any:
    try:
        return inner(kind, name, properties, stack, stack_id, *args, **more)
    except Exception:
        identity = _made.pop((stack_id, name), f"{stack}-{name}-{uuid.uuid4().hex[:12].upper()}")
        if kind == "Create":  # the rollback deletes what it may have made, as on AWS
            record = {"PhysicalResourceId": identity, "ResourceType": args[0], "Properties": properties}
            _stacks[stack].setdefault(_FAILED, {})[name] = {**record, "LogicalResourceId": name}
        raise


def _roll_back_operation(
    inner: Callable[..., Any], name: str, stack_id: str, stack: dict[str, Any], operation: Any, *args: Any, **more: Any
) -> Coroutine[Any, Any, None]:
    failed = stack.pop(_FAILED, {})
    stack.setdefault("_resources", {}).update(failed)
    operation = {**operation, "created": [*operation["created"], *failed]}
    return inner(name, stack_id, stack, operation, *args, **more)  # type: ignore[no-any-return]
