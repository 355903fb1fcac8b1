"""The Ray Serve front: the same answers as the server's, in a process that Ray has told as little as it does."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from serving_fixtures import make_artifact, picture
from starlette.requests import Request

from model.artifact import ONNX_FILE, ArtifactError
from model.deployment import Replica
from model.invocation import RequestLimits
from model.packaging import add_serving_program
from model.predictor import Predictor

# What of Ray the application touches, with the same effects: the decorator turns the class into an object with
# `bind`, so that cloudpickle finds no class under its name and pickles it by value.
FAKE_RAY = """
class Deployment:
    def __init__(self, cls, options):
        self.cls, self.options = cls, options

    def bind(self, *arguments):
        return Application(self, arguments)


class Application:
    def __init__(self, deployment, arguments):
        self.deployment, self.arguments = deployment, arguments


def deployment(**options):
    return lambda cls: Deployment(cls, options)
"""

BUILD = """
import importlib, sys, cloudpickle, yaml
from pathlib import Path
folder = Path(sys.argv[1])
(application,) = yaml.safe_load((folder / "config.yaml").read_text())["applications"]
module, _, name = application["import_path"].partition(":")
app = getattr(importlib.import_module(module), name)
assert app.deployment.options["num_replicas"] >= 1
sys.stdout.buffer.write(cloudpickle.dumps((app.deployment.cls, app.arguments)))
"""

REPLICA = """
import asyncio, pickle, sys
from pathlib import Path
from starlette.requests import Request
folder, pickled, body = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), Path(sys.argv[3]).read_bytes()
cls, arguments = pickle.loads(pickled)
assert "deployment" not in sys.modules, "the class was pickled by reference"
replica = cls(*arguments)
import model
assert Path(model.__file__).is_relative_to(folder / "code"), model.__file__

async def receive():
    return {"type": "http.request", "body": body, "more_body": False}

scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", b"image/png; top_k=2")]}
response = asyncio.run(replica(Request(scope, receive)))
print(response.status_code, response.media_type, response.body.decode())
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_artifact(tmp_path_factory.mktemp("opt") / "ml" / "model").resolve()
    add_serving_program(folder)
    return folder


@pytest.fixture(scope="module")
def replica(artifact: Path) -> Replica:
    return Replica(Predictor.load(artifact), RequestLimits(max_body_bytes=10_000, max_pictures=4))


def call(replica: Replica, body: bytes, **headers: str) -> tuple[int, Any]:
    raw = [(key.replace("_", "-").lower().encode(), value.encode()) for key, value in headers.items()]
    chunks = [body[:100], body[100:]]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def answered() -> tuple[int, Any]:
        response = await replica(Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive))
        assert response.media_type == "application/json"
        return response.status_code, json.loads(bytes(response.body))

    return asyncio.run(answered())


def test_the_answers_are_the_predictors(replica: Replica, artifact: Path) -> None:
    predictor = Predictor.load(artifact)
    colours = ("blue", "lime", "red")
    texts = [base64.b64encode(picture(colour)).decode() for colour in colours]
    many = json.dumps({"images": [*texts, ""], "scores": True}).encode()
    status, document = call(replica, many, content_type="application/json")
    *classified, refused = document["results"]
    assert status == 200
    assert [each["scores"] for each in classified] == [predictor.predict(picture(colour)).scores for colour in colours]
    assert refused["error"]["code"] == "unsupported_image"
    for body, content_type in [
        (picture("blue"), "image/png; scores=true"),
        (json.dumps({"image": texts[0], "scores": True}).encode(), "application/json"),
    ]:
        assert call(replica, body, content_type=content_type) == (200, classified[0])
    for body, content_type, expected in [(b"hello", "image/png", 415), (b"{", "application/json", 400)]:
        assert call(replica, body, content_type=content_type)[0] == expected


def test_the_accept_header_is_honoured(replica: Replica) -> None:
    assert call(replica, picture(), accept="text/csv")[0] == 406


def test_the_custom_attributes_are_read_where_the_adapter_passes_them_on(replica: Replica) -> None:
    status, document = call(replica, picture(), X_Amzn_SageMaker_Custom_Attributes="scores=true")
    assert (status, len(document["scores"])) == (200, 3)


def test_a_body_over_the_limit_is_refused(replica: Replica) -> None:
    status, document = call(replica, b"x" * 10_001)
    assert (status, document["error"]["code"]) == (413, "image_too_large")


@pytest.mark.parametrize(("body", "code"), [(b"hello", "unsupported_image"), (bytes(10_001), "image_too_large")])
def test_a_batch_gets_errors_as_ordinary_answers(replica: Replica, body: bytes, code: str) -> None:
    status, document = call(replica, body, content_type="application/x-image; errors=inline")
    assert (status, document["error"]["code"]) == (200, code)


def test_several_requests_at_once_are_all_answered(replica: Replica) -> None:
    async def ask_all() -> list[int]:
        async def ask() -> int:
            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": picture(), "more_body": False}

            scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
            return (await replica(Request(scope, receive))).status_code

        return await asyncio.gather(*(ask() for _ in range(20)))

    assert asyncio.run(ask_all()) == [200] * 20


def test_a_caller_who_vanishes_is_the_frameworks_business_and_leaves_the_replica_well(replica: Replica) -> None:
    from starlette.requests import ClientDisconnect

    async def parts() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "http.request", "body": b"half", "more_body": True}
        yield {"type": "http.disconnect"}

    async def vanish() -> None:
        messages = parts()
        await replica(Request({"type": "http", "method": "POST", "path": "/", "headers": []}, messages.__anext__))

    with pytest.raises(ClientDisconnect):
        asyncio.run(vanish())
    assert call(replica, picture())[0] == 200


def test_a_damaged_artifact_fails_the_replicas_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = make_artifact(tmp_path)
    (artifact / ONNX_FILE).write_bytes(b"garbage")
    monkeypatch.setenv("SM_MODEL_DIR", str(artifact))
    with pytest.raises(ArtifactError, match="damaged or belongs to another model"):
        Replica.from_environment()


def test_the_config_file_is_a_ray_serve_config(artifact: Path) -> None:
    config = yaml.safe_load((artifact / "config.yaml").read_text())
    assert config == {"applications": [{"name": "classifier", "route_prefix": "/", "import_path": "deployment:app"}]}


def test_the_application_is_built_and_unpickled_as_ray_does(artifact: Path, tmp_path: Path) -> None:
    """The build sees the artifact's root on its path, as in AWS's image; a replica sees nothing of the artifact."""
    fake = tmp_path / "site" / "ray"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("")
    (fake / "serve.py").write_text(textwrap.dedent(FAKE_RAY))
    pickled, body = tmp_path / "pickled", tmp_path / "body.png"
    body.write_bytes(picture("blue"))

    def run(program: str, *arguments: Path, path: list[Path]) -> bytes:
        environment = {"PYTHONPATH": ":".join(map(str, path)), "SM_MODEL_DIR": str(artifact)}
        command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    pickled.write_bytes(run(BUILD, artifact, path=[artifact, fake.parent]))
    status, media_type, document = run(REPLICA, artifact, pickled, body, path=[]).decode().split(" ", 2)
    assert (status, media_type) == ("200", "application/json")
    predictions = json.loads(document)["predictions"]
    assert predictions[0]["label"] == "Blue Terrier"
    assert len(predictions) == 2
