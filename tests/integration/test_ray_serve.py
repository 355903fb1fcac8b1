"""The artifact on the real Ray Serve, started by the command that AWS's Ray Serve image runs.

`make ray` installs Ray beside `.venv` and runs this; without Ray it is skipped.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import importlib.util
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml
from PIL import Image

from model.artifact import ONNX_FILE, WEIGHTS_FILE, ModelCard, file_version
from model.invocation import classify
from model.invocation_request import Options
from model.network import build
from model.packaging import add_serving_program
from model.predictor import Predictor
from model.training.export import export_onnx

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: make ray"),
]

SERVE = "from ray.serve.scripts import cli; cli()"
LABELS = tuple(f"{number:03}.Breed_{number}" for number in range(1, 6))
SIZE = 32
DEADLINE_SECONDS = 180


@dataclass(frozen=True)
class RayServe:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def ask(self, body: bytes, path: str = "/", **headers: str) -> tuple[int, str, bytes]:
        """Return the status, the media type and the body of the answer; a POST, or a GET without a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
        with contextlib.closing(connection):
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("POST" if body else "GET", path, body, names)
            response = connection.getresponse()
            return response.status, response.headers.get_content_type(), response.read()

    def is_healthy(self) -> bool:
        """Return what AWS's adapter makes /ping of; fail if the program has ended."""
        assert self.process.poll() is None, self.log.read_text()[-5000:]
        try:
            return self.ask(b"", "/-/healthz")[0] == 200
        except ConnectionError:
            return False

    def replicas(self) -> list[psutil.Process]:
        """Return the processes that hold a copy of the model."""
        replicas = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie, which is a kind of that
                if "ServeReplica:classifier" in " ".join(child.cmdline()):
                    replicas.append(child)
        return replicas


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opt") / "ml" / "model"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    network = build("resnet9", len(LABELS)).eval()
    export_onnx(network, folder / ONNX_FILE, input_size=SIZE)
    torch.save(network.state_dict(), folder / WEIGHTS_FILE)
    ModelCard(
        name="breeds",
        version=file_version(folder / ONNX_FILE),
        architecture="resnet9",
        labels=LABELS,
        display_labels=tuple(label[4:].replace("_", " ") for label in LABELS),
        input_size=SIZE,
        resize_size=SIZE,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    ).save(folder)
    add_serving_program(folder)
    return folder


@pytest.fixture(scope="module")
def served(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayServe]:
    """Run `serve run config.yaml` as AWS's image does, but on a free port of the loopback interface."""
    folder = tmp_path_factory.mktemp("ray")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = yaml.safe_load((artifact / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"http_options": {"host": "127.0.0.1", "port": port}}))
    overlay = str(Path(importlib.util.find_spec("ray").origin).parents[1])  # type: ignore[union-attr, arg-type]
    # Its sockets' paths must be short, which those of pytest are not.
    with tempfile.TemporaryDirectory(prefix="ray") as temporary, (folder / "log").open("wb") as log:
        environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join([str(artifact), str(artifact / "code"), overlay]),
            "RAY_TMPDIR": temporary,
            "RAY_USAGE_STATS_ENABLED": "0",
            "HOME": temporary,
            "SM_MODEL_DIR": str(artifact),
            # AWS's image has no ONNX Runtime.
            "MODEL_SERVER_ENGINE": "torch",
            "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
        }
        command = [sys.executable, "-c", SERVE, "run", str(folder / "config.yaml")]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        running = RayServe(process, port, folder / "log")
        family = [psutil.Process(process.pid)]
        try:
            wait_until(running.is_healthy)
            wait_until(lambda: len(running.replicas()) == 2)
            family += family[0].children(recursive=True)
            yield running
        finally:
            family += [child for child in family[0].children(recursive=True) if child not in family]
            process.send_signal(signal.SIGINT)
            _, alive = psutil.wait_procs(family, timeout=60)
            for each in alive:
                each.kill()
            process.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not reached in {DEADLINE_SECONDS} s"
        time.sleep(0.1)


def photograph(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def predictor(artifact: Path) -> Predictor:
    return Predictor.load(artifact, "torch")


def test_answers_are_the_predictors(served: RayServe, predictor: Predictor) -> None:
    for seed in range(4):
        status, media_type, body = served.ask(photograph(seed), content_type="image/jpeg; top_k=2; scores=true")
        assert (status, media_type) == (200, "application/json")
        expected = json.loads(classify(predictor, photograph(seed), Options(top_k=2, scores=True)).body)
        assert json.loads(body)["scores"] == pytest.approx(expected.pop("scores"), abs=1e-6)
        assert [each["label"] for each in json.loads(body)["predictions"]] == [
            each["label"] for each in expected["predictions"]
        ]
        assert json.loads(body)["model"] == expected["model"]


def test_lists_and_the_accept_header_work_as_in_our_own_server(served: RayServe, predictor: Predictor) -> None:
    texts = [base64.b64encode(each).decode() for each in (photograph(1), b"no picture", photograph(2))]
    body = json.dumps({"images": texts}).encode()
    _, _, answer = served.ask(body, content_type="application/json")
    first, refused, last = json.loads(answer)["results"]
    assert refused["error"]["code"] == "unsupported_image"
    best = [predictor.predict(photograph(seed), top_k=1).ranked[0][0] for seed in (1, 2)]
    assert [each["predictions"][0]["label"] for each in (first, last)] == best
    status, media_type, answer = served.ask(body, content_type="application/json", accept="application/x-npy")
    assert (status, media_type) == (200, "application/x-npy")
    scores = np.load(io.BytesIO(answer))
    assert (scores.shape, np.isnan(scores[1]).all()) == ((3, len(LABELS)), True)


def test_errors_have_their_status_and_a_code(served: RayServe) -> None:
    for body, headers, expected in [
        (b"no picture", {"content_type": "image/jpeg"}, 415),
        (b"{", {"content_type": "application/json"}, 400),
        (photograph(0), {"content_type": "image/jpeg", "accept": "text/csv"}, 406),
        (b"no picture", {"content_type": "image/jpeg; errors=inline"}, 200),
        (bytes(7_000_000), {"content_type": "image/jpeg"}, 413),
    ]:
        status, media_type, answer = served.ask(body, **headers)
        assert (status, media_type) == (expected, "application/json")
        assert json.loads(answer)["error"]["code"]


def test_sixteen_callers_at_once_get_their_own_answers(served: RayServe, predictor: Predictor) -> None:
    def ask(index: int) -> bool:
        status, _, answer = served.ask(photograph(index), content_type="image/jpeg; top_k=1")
        best = predictor.predict(photograph(index), top_k=1).ranked[0][0]
        return status == 200 and json.loads(answer)["predictions"][0]["label"] == best

    with ThreadPoolExecutor(16) as callers:
        assert all(callers.map(ask, range(64)))


def test_a_killed_copy_is_replaced(served: RayServe) -> None:
    before = served.replicas()
    assert len(before) == 2
    before[0].kill()
    wait_until(lambda: len({each.pid for each in served.replicas()} - {before[0].pid}) == 2)
    wait_until(lambda: served.ask(photograph(0), content_type="image/jpeg")[0] == 200)
