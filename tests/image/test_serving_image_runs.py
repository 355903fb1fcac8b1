"""The serving image, really built and run: what SageMaker would do with it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_container import USER, Container, build, container
from serving_fixtures import COLOURS, make_artifact, picture

from model import packaging
from model.artifact_digest import VARIABLE, folder_digest
from model.predictor import Predictor

TAG = "localhost/kennel-serving-test"
BUILDER = shutil.which("buildah")

pytestmark = pytest.mark.skipif(
    not (BUILDER and sys.platform == "linux" and os.geteuid() == 0),
    reason="NOT BUILT, NOT RUN: the serving image needs buildah and root (apt-get install buildah mmdebstrap)",
)


@pytest.fixture(scope="module")
def buildah() -> Path:
    assert BUILDER is not None
    return Path(BUILDER)


@pytest.fixture(scope="module")
def image(buildah: Path) -> str:
    print(f"The serving image is built on {build(buildah, TAG)}")
    return TAG


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What SageMaker unpacks: a packaged model."""
    folder = tmp_path_factory.mktemp("artifact")
    packaging.package(make_artifact(folder / "model", blue_steps=2000), folder / "model.tar.gz")
    with tarfile.open(folder / "model.tar.gz") as archive:
        archive.extractall(folder / "unpacked", filter="data")
    return folder / "unpacked"


@pytest.fixture(scope="module")
def served(buildah: Path, image: str, artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    log = tmp_path_factory.mktemp("log") / "log"
    with container(buildah, image, artifact, log, **{VARIABLE: folder_digest(artifact)}) as running:
        running.wait_until_ready()
        yield running


def test_answers_are_those_of_the_artifact_offline(served: Container, artifact: Path) -> None:
    predictor = Predictor.load(artifact)
    answers = served.ask(*(("POST", "/invocations", picture(colour)) for colour in COLOURS))
    for colour, (status, body) in zip(COLOURS, answers, strict=True):
        assert status == 200, body
        online = [(each["label"], each["probability"]) for each in json.loads(body)["predictions"]]
        assert online == predictor.predict(picture(colour)).ranked


def test_the_server_is_not_root_and_cannot_change_the_model(served: Container) -> None:
    server = served.server()
    assert server is not None
    assert server.uids() == (USER, USER, USER)


def test_sigterm_lets_the_request_at_work_finish(buildah: Path, image: str, artifact: Path, tmp_path: Path) -> None:
    with container(buildah, image, artifact, tmp_path / "log") as running:
        running.wait_until_ready()
        slow = running.send(("POST", "/invocations", picture("blue")))
        running.wait_until_at_work()
        running.terminate()
        ((status, _),) = running.answers(slow)
        assert status == 200
        assert running.process.wait(timeout=30) == 0


def test_another_artifact_than_the_deployed_one_is_not_run(
    buildah: Path, image: str, artifact: Path, tmp_path: Path
) -> None:
    with container(buildah, image, artifact, tmp_path / "log", **{VARIABLE: f"sha256:{64 * '0'}"}) as running:
        assert running.process.wait(timeout=60) == 1
        assert "is not the one that was deployed" in running.log.read_text()
