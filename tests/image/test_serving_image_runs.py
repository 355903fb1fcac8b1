"""The serving image, really built and run: what SageMaker would do with it."""

import json
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
from serving_container import build, container
from serving_fixtures import COLOURS, image_bytes, make_artifact

from model.core import packaging
from model.core.artifact_digest import VARIABLE, folder_digest
from model.core.predictor import Predictor

TAG = "localhost/kennel-serving-test"
BUILDER = shutil.which("buildah")

pytestmark = pytest.mark.skipif(
    not (BUILDER and shutil.which("curl") and sys.platform == "linux" and os.geteuid() == 0),
    reason="NOT BUILT, NOT RUN: the serving image needs root (apt-get install buildah curl mmdebstrap)",
)


def test_answers_are_those_of_the_artifact_offline(tmp_path: Path) -> None:
    builder = Path(str(BUILDER))
    print(f"The serving image is built on {build(builder, TAG)}")
    packaging.package(make_artifact(tmp_path / "model"), tmp_path / "model.tar.gz")
    artifact = tmp_path / "artifact"
    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        archive.extractall(artifact, filter="data")
    predictor = Predictor.load(artifact)
    with container(builder, TAG, artifact, tmp_path / "log", **{VARIABLE: folder_digest(artifact)}) as served:
        served.wait_until_ready()
        for colour in COLOURS:
            status, body = served.ask("/invocations", image_bytes(colour))
            assert status == 200, body
            online = [(each["label"], each["probability"]) for each in json.loads(body)["predictions"]]
            assert online == predictor.predict(image_bytes(colour)).ranked
        held = served.look(
            "grep -E 'Cap(Prm|Eff)' /proc/self/status; id -u; find / -xdev -writable 2>/dev/null | grep -v ^/proc; true"
        )
        assert re.fullmatch(r"(Cap\w+:\s0{16}\s){2}10001", held), held
        programs = "cc gcc clang ld make pip pip3 apt apt-get curl wget git ssh nc"
        assert served.look(f"for it in {programs}; do command -v $it; done; true") == ""
        assert (
            served.look("find / -xdev -regex '.*/python3.*/\\(pip\\|setuptools\\|ensurepip\\)' 2>/dev/null; true") == ""
        )
