"""What a function of Python answers, and how it fails, as AWS's runtime and Lambda tell it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import lambda_svc

from emulator.ministack.functions.corrections import replaced
from emulator.ministack.patching import around

_BYTES = "\0bytes"
#: What a header of HTTP may have as its name and as its value, and those that are the connection's own.
_HEADER = re.compile(r"[\w!#$%&'*+.^`|~-]+:[^\0-\x08\n-\x1f\x7f]*", re.ASCII)
_FRAMING = ("connection", "content-length", "transfer-encoding")
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
    """Tell callers of a URL nothing of an error but that there was one; a result that cannot be sent is one, too."""
    if result.get("error") and not result.get("throttle"):
        return None, None
    response, problem = inner(result)
    try:
        named = dict(response.get("headers") or {})
        lines = [f"{n}:{value}" for n, value in [*named.items(), *(("c", c) for c in response.get("cookies") or ())]]
        sound = 100 <= int(response["statusCode"]) < 600 and isinstance(response.get("body", ""), str | None)
        if not sound or not all(map(_HEADER.fullmatch, lines)):
            return None, None
    except (AttributeError, TypeError, ValueError):
        return None, None
    return {**response, "headers": remapped(named)}, problem


def remapped(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Rename what says how long a message is: that is the server's to say."""
    return {f"x-amzn-Remapped-{n}" if n.lower() in _FRAMING else n: value for n, value in headers.items()}
