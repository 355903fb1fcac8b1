"""The whole path on a real account: about 40 minutes and less than 1 USD; everything is destroyed at the end."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from cli.aws import Stage

ROOT = Path(__file__).resolve().parents[2]


def kennel(*arguments: str) -> str:
    """Run `kennel` for the stage dev; what it prints is also shown."""
    done = subprocess.run(["kennel", "--stage", "dev", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    assert done.returncode == 0
    return done.stdout


@pytest.fixture(scope="module")
def deployed(account: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The drawn data set, after a model trained on it has been deployed."""
    data = tmp_path_factory.mktemp("data") / "sample"
    kennel("data", "sample", str(data))
    try:
        kennel("deploy", "--yes", "storage", "training")
        kennel("data", "push", str(data))
        kennel("train")
        kennel("package")
        kennel("deploy", "--yes")
        yield data
    finally:
        kennel("destroy", "--yes")


def test_the_deployed_model_answers_as_its_artifact_does(deployed: Path) -> None:
    figures = json.loads(kennel("evaluate", str(deployed), "--json").splitlines()[-1])
    assert figures["accuracy_online"] >= 0.85
    # The engines differ (PyTorch in the image, ONNX Runtime here): a picture on the edge may fall on either side.
    assert figures["accuracy_online"] == pytest.approx(figures["accuracy_offline"], abs=0.01)


def test_an_unsigned_call_is_refused(deployed: Path) -> None:
    url = Stage("dev").output("inference", "FunctionUrl")
    assert urllib3.request("POST", url, body=b"x", retries=False).status == 403
