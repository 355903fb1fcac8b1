"""The beginning of the program that runs a function of Python: results and errors as AWS's runtime makes them.

As in awslambdaric 4.2, which serialises with simplejson. A program of functions: it imports nothing of this project.
"""

import base64
import importlib
import json
import re
import sys
import traceback
import uuid
from decimal import Decimal
from typing import Any

_NUMBER = uuid.uuid4().hex


class _FaultError(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = f"Runtime.{kind}"


def _load(module: str, name: str) -> Any:
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise _FaultError("ImportModuleError", f"Unable to import module '{module}': {error}") from None
    except SyntaxError as error:
        raise _FaultError("UserCodeSyntaxError", f"Syntax error in module '{module}': {error}") from None
    if not hasattr(loaded, name):
        raise _FaultError("HandlerNotFound", f"Handler '{name}' missing on module '{module}'")
    return getattr(loaded, name)


def _plain(value: Any, within: frozenset[int] = frozenset()) -> Any:
    """Write what simplejson takes and json does not: bytes are texts, decimals numbers, named tuples objects."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Decimal):
        return float("nan") if value.is_nan() else f"{_NUMBER}{value}"
    if id(value) in within:
        raise ValueError("Circular reference detected")
    inside = within | {id(value)}
    value = value._asdict() if isinstance(value, tuple) and hasattr(value, "_asdict") else value
    if isinstance(value, dict):
        return {k.decode() if isinstance(k, bytes) else k: _plain(item, inside) for k, item in value.items()}
    return [_plain(item, inside) for item in value] if isinstance(value, list | tuple) else value


def _answer(handler: Any, event: Any, context: Any) -> str:
    """Call the handler; the line that tells the server its result, or how it failed."""
    try:
        result = handler(event, context)
        if isinstance(result, bytes):  # goes out as it is
            return json.dumps({"status": "ok", "result": {"\0bytes": base64.b64encode(result).decode()}})
        try:
            text = re.sub(rf'"{_NUMBER}([^"]*)"', r"\1", json.dumps(_plain(result)))
        except Exception as error:
            raise _FaultError("MarshalError", f"Unable to marshal response: {error}") from None
        return f'{{"status": "ok", "result": {text}}}'
    except Exception:
        return _failure(context.aws_request_id)
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        how = f"with error: exit status {status}" if status else "without providing a reason"
        message = f"RequestId: {context.aws_request_id} Error: Runtime exited {how}"
        return _line({"errorType": "Runtime.ExitError", "errorMessage": message})


def _failure(request_id: str = "") -> str:
    _, error, trace = sys.exc_info()
    frames = [] if isinstance(error, _FaultError) else traceback.extract_tb(trace)
    stack = traceback.format_list([frame for frame in frames if frame.filename != __file__])
    kind = getattr(error, "kind", type(error).__name__)
    return _line({"errorMessage": str(error), "errorType": kind, "requestId": request_id, "stackTrace": stack})


def _line(error: dict[str, Any]) -> str:
    log = [f"[ERROR] {error['errorType']}: {error['errorMessage']}\n", "Traceback (most recent call last):\n"]
    trace = "".join(log + error["stackTrace"]) if "stackTrace" in error else ""
    return json.dumps({"status": "error", "error": f"\0{json.dumps(error)}", "trace": trace})
