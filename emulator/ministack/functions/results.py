"""What a function of Python answers, and how it fails, as AWS's runtime and Lambda tell it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import lambda_svc

from emulator.ministack.functions.corrections import replaced
from emulator.ministack.patching import around

_BYTES = "\0bytes"
_DIED = ("Worker process died", "Worker returned no response")
_PROGRAM = {
    "mod = importlib.import_module(module_name)\n        handler_fn = getattr(mod, handler_name)": (
        "handler_fn = _load(module_name, handler_name)"
    ),
    'json.dumps({"status": "error", "error": str(e)})': "_failure()",
    "result = handler_fn(event, context)\n            ": "",
    'json.dumps({"status": "ok", "result": result})': "_answer(handler_fn, event, context)",
}


def install() -> None:
    ours = Path(__file__).with_name("python_program.py").read_text(encoding="utf-8")
    lambda_runtime._PYTHON_WORKER_SCRIPT = ours + replaced(lambda_runtime._PYTHON_WORKER_SCRIPT, _PROGRAM)
    around(lambda_svc, "_execute_function_warm", _execute)
    around(lambda_svc, "lambda_execute_result_to_api_proxy_response", _of_url)


def _execute(inner: Callable[..., Any], function: Any, event: Any, request_id: str) -> Any:
    result = inner(function, event, request_id)
    body = result.get("body")
    if isinstance(body, dict) and body.keys() == {_BYTES}:
        return {**result, "body": base64.b64decode(body[_BYTES])}
    if not result.get("error") or result.get("throttle"):
        return result
    message, ours, error = str(body["errorMessage"]).partition("\0")
    if ours:
        body = json.loads(error)
    elif message in _DIED:
        body = {"errorType": "Runtime.ExitError", "errorMessage": f"RequestId: {request_id} Error: Runtime exited"}
    elif body["errorType"] == "Sandbox.Timedout":
        body = {**body, "errorMessage": f"RequestId: {request_id} Error: {message}"}
    return {**result, "body": body, "log": result.get("log") or f"[ERROR] {body['errorType']}: {body['errorMessage']}"}


def _of_url(inner: Callable[..., Any], result: dict[str, Any]) -> Any:
    """Tell callers of a URL nothing of an error but that there was one."""
    return (None, None) if result.get("error") and not result.get("throttle") else inner(result)
