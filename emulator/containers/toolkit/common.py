"""What both contracts share: the functions of a script around a model, and the default formats."""

from __future__ import annotations

import importlib
import io
import json
import os
from collections.abc import Mapping
from typing import Any

JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"
#: Bodies that a script gets as text.
TEXTS = (JSON, CSV)
#: Status, headers with names in lower case, and body of a response.
Answer = tuple[int, dict[str, str], bytes]
_THREE = ("input_fn", "predict_fn", "output_fn")


class Contract:
    """A model, and the functions of its script: three for a request, or transform_fn in their place."""

    model: Any

    def __init__(self, module: Any, defaults: Mapping[str, Any]) -> None:
        names = ("model_fn", *_THREE, "transform_fn", "pre_model_fn", "model_warmup_fn")
        given = {name: found for name in names if (found := getattr(module, name, None))}
        if "transform_fn" in given and given.keys() & {*_THREE}:
            raise ValueError(f"transform_fn replaces {', '.join(_THREE)}: define it or those.")
        self.functions = {**defaults, **given}

    def call(self, name: str, *arguments: Any) -> Any:
        return self.functions[name](*arguments)

    def result(self, body: bytes, content_type: str | None, accept: str) -> Any:
        content = body.decode() if content_type in TEXTS else body
        if "transform_fn" in self.functions:
            return self.call("transform_fn", self.model, content, content_type, accept)
        prediction = self.call("predict_fn", self.call("input_fn", content, content_type), self.model)
        return self.call("output_fn", prediction, accept)


def accepted(headers: Mapping[str, str]) -> str:
    default, accept = os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", JSON), headers.get("Accept", "*/*")
    return default if accept in ("", "*/*") else accept


def decode(content: Any, content_type: str | None) -> Any:
    import numpy as np  # here: a script with functions of its own need not have it

    if content_type == JSON:
        return np.array(json.loads(content))
    if content_type == CSV:
        return np.genfromtxt(io.StringIO(content), delimiter=",")
    if content_type == NPY:
        return np.load(io.BytesIO(content), allow_pickle=False)
    raise unsupported(content_type)


def encode(prediction: Any, content_type: str) -> bytes:
    if content_type == JSON:
        return json.dumps(prediction, default=lambda value: value.tolist()).encode()
    if content_type not in (CSV, NPY):
        raise unsupported(content_type)
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, prediction) if content_type == NPY else np.savetxt(buffer, prediction, delimiter=",", fmt="%s")
    return buffer.getvalue()


def unsupported(content_type: str | None) -> Exception:
    known = f"{JSON}, {CSV} and {NPY}; for others, implement input_fn or output_fn"
    return ValueError(f"Content type {content_type} is not supported: the default functions read and write {known}.")


_model: Any = None


def load(framework: str) -> None:
    """Load the model, in the process of a worker, which does one request at a time."""
    global _model
    _model = importlib.import_module(f".{framework}", __package__).Model(os.environ["SM_MODEL_DIR"])


def handle(body: bytes, headers: Mapping[str, str]) -> Answer:
    answer: Answer = _model.handle(body, headers)
    return answer
