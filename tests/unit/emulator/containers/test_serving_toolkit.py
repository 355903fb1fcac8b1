"""A script is served with the contract of AWS's containers, whichever functions it defines."""

from __future__ import annotations

import io
import itertools
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emulator.containers.toolkit import pytorch, scikit_learn

JSON, CSV, NPY = FORMATS = "application/json", "text/csv", "application/x-npy"
NAMES = ("input_fn", "predict_fn", "output_fn")
MODELS = {"pytorch": pytorch.Model, "scikit_learn": scikit_learn.Model}
both = pytest.mark.parametrize("framework", MODELS)
np.save(npy := io.BytesIO(), np.array([[1.5, 2.0]], dtype="float32"))
REQUESTS: dict[str, Any] = {JSON: b"[[1.5, 2]]", CSV: b"1.5,2\n", NPY: npy.getvalue()}
RESPONSES = {JSON: b"[[3.0, 4.0]]", CSV: b"3.0,4.0\n", NPY: [[3.0, 4.0]]}
Serve = Callable[..., Any]


class Doubling(torch.nn.Module):
    def forward(self, data: Any) -> Any:
        return np.atleast_2d(data) * 2 if isinstance(data, np.ndarray) else torch.atleast_2d(data) * 2

    predict = forward


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serves a script of some functions, with a model that doubles."""
    monkeypatch.setenv("SAGEMAKER_PROGRAM", "script.py")

    def make(framework: str, **functions: Any) -> Any:
        module: Any = types.ModuleType("script")
        vars(module).update({"__spec__": object(), "model_fn": lambda folder: Doubling(), **functions})
        monkeypatch.setitem(sys.modules, "script", module)
        return MODELS[framework]("folder")

    return make


@both
@pytest.mark.parametrize("given", [some for n in range(4) for some in itertools.combinations(NAMES, n)])
@pytest.mark.parametrize("content_type", FORMATS)
@pytest.mark.parametrize("accept", [*FORMATS, "*/*"])
def test_a_script_replaces_any_of_the_functions_that_read_and_write_every_format(
    serve: Serve, framework: str, given: tuple[str, ...], content_type: str, accept: str
) -> None:
    seen: dict[str, tuple[Any, Any]] = {}
    array = torch.tensor([[1.5, 2]]) if framework == "pytorch" else np.array([[1.5, 2]])
    results = dict(zip(NAMES, (array, array * 2, (b"written", "image/png")), strict=True))
    functions = {name: lambda *told, name=name: (seen.update({name: told}), results[name])[1] for name in given}
    headers = {"Content-Type": content_type, "Accept": accept}
    status, told, body = serve(framework, **functions).handle(REQUESTS[content_type], headers)
    answered = accept if accept in FORMATS else JSON
    if "output_fn" in given:
        assert (told["content-type"], body, seen["output_fn"][1]) == ("image/png", b"written", answered)
    else:
        charset = "; charset=utf-8" if (framework, answered) == ("scikit_learn", CSV) else ""
        content = np.load(io.BytesIO(body)).tolist() if answered == NPY else body
        assert (told, content) == ({"content-type": answered + charset}, RESPONSES[answered])
    request = REQUESTS[content_type]
    read = (request if content_type == NPY else request.decode(), content_type)
    assert (status, set(seen), seen.get("input_fn", read)) == (200, set(given), read)


@both
def test_failures_are_500_as_the_toolkits_have_it_and_transform_fn_stands_alone(serve: Serve, framework: str) -> None:
    for headers, request, problem in (
        ({"Content-Type": "image/png"}, b"", b"image/png is not supported"),
        ({"Content-Type": JSON, "Accept": "image/png"}, b"[[1]]", b"image/png is not supported"),
        ({"Content-Type": JSON}, b"[[1", b"delimiter"),
    ):
        status, _, body = serve(framework).handle(request, headers)
        assert (status, problem in body) == (500, framework == "pytorch"), "no 415, no 406; only one says why"

    def transform(model: Any, content: Any, content_type: str, accept: str) -> tuple[str, str]:
        return f"{content} {content_type} {accept}", "image/png"

    answer = serve(framework, transform_fn=transform).handle(b"[1]", {"Content-Type": JSON, "Accept": CSV})
    assert answer == (200, {"content-type": "image/png"}, b"[1] application/json text/csv")
    for name in NAMES:
        with pytest.raises(ValueError, match="transform_fn replaces"):
            serve(framework, transform_fn=transform, **{name: transform})


def test_pytorchs_functions_may_take_the_context(serve: Serve) -> None:
    def predict(data: Any, model: Any, context: Any) -> Any:
        context.set_response_status(int(context.get_request_header(0, "X-Status")))
        return model

    served = serve("pytorch", model_fn=lambda folder, context: "7", predict_fn=predict, output_fn=lambda made, _: made)
    for status in (202, 200):
        assert served.handle(b"[1]", {"Content-Type": JSON, "X-Status": str(status)})[::2] == (status, b"7")
    for output, status in ((lambda made: "", 500), (lambda made, accept: object(), 503)):
        assert serve("pytorch", output_fn=output).handle(b"[1]", {"Content-Type": JSON})[0] == status


def test_pytorch_needs_no_script_for_one_torchscript_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_PROGRAM", "no_such_script.py")
    torch.jit.trace(torch.nn.Identity(), torch.ones(1)).save(tmp_path / "some.pth")
    asked = {"Content-Type": JSON, "Accept": "text/html, text/csv"}
    assert pytorch.Model(str(tmp_path)).handle(b"[1, 2]", asked)[2] == b"1.0\n2.0\n"
    (tmp_path / "other.pt").touch()
    with pytest.raises(ValueError, match=r"exactly one .pth or .pt file is required: \['other.pt', 'some.pth'\]"):
        pytorch.Model(str(tmp_path))


def test_scikit_learns_results_become_what_flask_makes_of_them(serve: Serve) -> None:
    for result, status, content_type, body in (
        ("a", 200, "text/html; charset=utf-8", b"a"),
        ({"b": 1, "a": [1.5]}, 200, JSON, b'{"a":[1.5],"b":1}\n'),
        (None, 500, "text/html; charset=utf-8", scikit_learn._FAILED),
    ):
        served = serve("scikit_learn", output_fn=lambda prediction, accept, result=result: result)
        assert served.handle(b'[["1"]]', {}) == (status, {"content-type": content_type}, body)
    with pytest.raises(KeyError, match="model_fn"):
        serve("scikit_learn", model_fn=None)
