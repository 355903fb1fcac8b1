"""The serving image, really built and run: what SageMaker would do with it."""

import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_container import Container, build, container
from serving_fixtures import COLOURS, image_bytes, make_artifact

from model.core import packaging
from model.core.artifact_digest import VARIABLE, folder_digest
from model.core.predictor import Predictor

TAG = "localhost/kennel-serving-test"
BUILDER = shutil.which("buildah")

pytestmark = pytest.mark.skipif(
    not (BUILDER and sys.platform == "linux" and os.geteuid() == 0),
    reason="NOT BUILT, NOT RUN: the serving image needs buildah and root (apt-get install buildah mmdebstrap)",
)


@pytest.fixture(scope="module")
def buildah() -> Path:
    builder = Path(str(BUILDER))
    print(f"The serving image is built on {build(builder, TAG)}")
    return builder


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What SageMaker unpacks: a packaged model."""
    folder = tmp_path_factory.mktemp("artifact")
    packaging.package(make_artifact(folder / "model"), folder / "model.tar.gz")
    with tarfile.open(folder / "model.tar.gz") as archive:
        archive.extractall(folder / "unpacked", filter="data")
    return folder / "unpacked"


@pytest.fixture
def served(buildah: Path, artifact: Path, tmp_path: Path) -> Iterator[Container]:
    with container(buildah, TAG, artifact, tmp_path / "log", **{VARIABLE: folder_digest(artifact)}) as running:
        running.wait_until_ready()
        yield running


def test_answers_are_those_of_the_artifact_offline(served, artifact):
    predictor = Predictor.load(artifact)
    for colour in COLOURS:
        status, body = served.ask("/invocations", image_bytes(colour))
        assert status == 200, body
        online = [(each["label"], each["probability"]) for each in json.loads(body)["predictions"]]
        assert online == predictor.predict(image_bytes(colour)).ranked


def test_another_artifact_than_the_deployed_one_is_not_run(buildah: Path, artifact: Path, tmp_path: Path) -> None:
    with container(buildah, TAG, artifact, tmp_path / "log", **{VARIABLE: f"sha256:{64 * '0'}"}) as running:
        assert running.process.wait(timeout=60) == 1
        assert "is not the one that was deployed" in running.log.read_text()
