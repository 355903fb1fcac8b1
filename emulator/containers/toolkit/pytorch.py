"""AWS's PyTorch inference container: the functions of sagemaker-pytorch-inference-toolkit, behind TorchServe."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .common import CSV, JSON, NPY, TEXTS, Answer, Contract, accepted, decode, encode, unsupported

_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Context:
    """TorchServe's context of a request, for functions with one more parameter."""

    def __init__(self, model_dir: str) -> None:
        gpu = 0 if _DEVICE.type == "cuda" else None
        self.system_properties = {"model_dir": model_dir, "gpu_id": gpu, "batch_size": 1, "server_name": "MMS"}
        self.model_name, self.manifest = "model", dict[str, Any]()
        self.begin({})

    def begin(self, headers: Mapping[str, str]) -> None:
        self._request, self.status, self.headers = dict(headers), 200, dict[str, str]()

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        return self._request

    def get_request_header(self, idx: int, key: str) -> str | None:
        return self._request.get(key.title())

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.set_response_header(idx, "content-type", value)

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self.headers[key.lower()] = value

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.status = code


class Model(Contract):
    """Without a script, or without one of the functions, those of the toolkit."""

    def __init__(self, model_dir: str) -> None:
        script = os.environ.get("SAGEMAKER_PROGRAM", "inference.py").removesuffix(".py")
        super().__init__(importlib.import_module(script) if importlib.util.find_spec(script) else None, _DEFAULTS)
        self._context = Context(model_dir)
        self.call("pre_model_fn", model_dir)
        self.model = self.call("model_fn", model_dir)
        self.call("model_warmup_fn", model_dir, self.model)

    def call(self, name: str, *arguments: Any) -> Any:
        takes = len(inspect.signature(self.functions[name]).parameters)
        if takes not in (len(arguments), len(arguments) + 1):
            raise TypeError(f"{name} takes {takes} arguments but {len(arguments)} were given.")
        return super().call(name, *arguments, *[self._context][: takes - len(arguments)])

    def handle(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        self._context.begin(headers)
        accept = accepted(headers)
        try:
            result = self.result(body, headers.get("Content-Type"), accept)
        except Exception as error:
            sys.stderr.write(trace := traceback.format_exc())
            return 500, {}, f"{str(error) or 'Invalid Request'}\n{trace}".encode()
        result, content_type = result[:2] if isinstance(result, tuple) else (result, accept)
        self._context.set_response_content_type(0, content_type)  # whatever the functions have set
        if not isinstance(result, str | bytes | bytearray):
            try:
                result = json.dumps(result, indent=2)
            except TypeError:
                return 503, {}, b"Unsupported model output data type."
        content = result.encode() if isinstance(result, str) else bytes(result)
        return self._context.status, self._context.headers, content


def _model_fn(model_dir: str) -> Any:
    path = Path(model_dir, "model.pt")
    if not path.exists():
        files = [file for file in Path(model_dir).iterdir() if file.is_file() and file.suffix in (".pt", ".pth")]
        if len(files) != 1:
            found = sorted(file.name for file in files)
            raise ValueError(f"Without a model_fn, exactly one .pth or .pt file is required: {found}")
        path = files[0]
    return torch.jit.load(path, map_location=_DEVICE)


def _input_fn(content: Any, content_type: str) -> Any:
    array = decode(content, content_type)
    return (torch.FloatTensor(array) if content_type in TEXTS else torch.from_numpy(array)).to(_DEVICE)


def _predict_fn(data: Any, model: Any) -> Any:
    with torch.no_grad():
        return model.to(_DEVICE).eval()(data.to(_DEVICE))


def _output_fn(prediction: Any, accept: str) -> bytes:
    if type(prediction) is torch.Tensor:
        prediction = prediction.detach().cpu().numpy().tolist()
    for content_type in accept.replace(" ", "").split(","):
        if content_type in (JSON, CSV, NPY):
            return encode(prediction, content_type)
    raise unsupported(accept)


_DEFAULTS: dict[str, Any] = {
    "pre_model_fn": lambda model_dir: None,
    "model_fn": _model_fn,
    "model_warmup_fn": lambda model_dir, model: None,
    "input_fn": _input_fn,
    "predict_fn": _predict_fn,
    "output_fn": _output_fn,
}
