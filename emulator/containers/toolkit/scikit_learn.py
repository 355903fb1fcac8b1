"""AWS's scikit-learn container: the functions of sagemaker-containers, in a Flask application.

Every exception, of unknown formats too, is status 500 with Flask's page: the container wraps all functions, so that
the branches for 415 and 406 of sagemaker-containers never match.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import traceback
from collections.abc import Mapping
from typing import Any

from .common import CSV, JSON, Answer, Contract, accepted, decode, encode

_FAILED = b"<!doctype html>\n<html lang=en>\n<title>500 Internal Server Error</title>\n<h1>Internal Server Error</h1>\n"


class Model(Contract):
    def __init__(self, model_dir: str) -> None:
        super().__init__(importlib.import_module(os.environ["SAGEMAKER_PROGRAM"].removesuffix(".py")), _DEFAULTS)
        self.model = self.call("model_fn", model_dir)  # has no default

    def handle(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        try:
            return _response(self.result(body, headers.get("Content-Type") or JSON, accepted(headers)))
        except Exception:
            traceback.print_exc()
            return 500, {"content-type": "text/html; charset=utf-8"}, _FAILED


def _response(result: Any) -> Answer:
    """Make what Flask makes of a response of its own, a pair of body and type, a body, or a document."""
    if hasattr(result, "get_data"):
        return result.status_code, {name.lower(): value for name, value in result.headers.items()}, result.get_data()
    if isinstance(result, dict | list):
        result = json.dumps(result, separators=(",", ":"), sort_keys=True) + "\n", JSON
    body, content_type = result[:2] if isinstance(result, tuple) else (result, "text/html")
    if not isinstance(body, str | bytes | bytearray):
        raise TypeError(f"The response must be text or bytes, or a pair of that and its type, not {type(body)}.")
    charset = "; charset=utf-8" if content_type.startswith("text/") and ";" not in content_type else ""
    return 200, {"content-type": content_type + charset}, body.encode() if isinstance(body, str) else bytes(body)


def _input_fn(content: Any, content_type: str) -> Any:
    if content_type == CSV:  # which may have quotes, unlike PyTorch's
        rows = list(csv.reader(io.StringIO(content), strict=True))
        return decode(json.dumps(rows), JSON).squeeze().astype("float32")
    array = decode(content, content_type)
    return array.astype("float32") if content_type == JSON else array


_DEFAULTS: dict[str, Any] = {
    "input_fn": _input_fn,
    "predict_fn": lambda data, model: model.predict(data),
    "output_fn": lambda prediction, accept: (encode(prediction, accept), accept),
}
