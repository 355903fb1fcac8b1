"""Where first weights come from, and what is said when they do not come."""

from __future__ import annotations

import hashlib
import io
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
import torch
from fake_s3 import FakeS3
from file_server import serve
from serving_fixtures import make_artifact

from model.core import network
from model.core.artifact import CARD_FILE
from model.core.network import NetworkError, build, made_for
from model.core.transforms import Preprocessing
from model.training import weights
from model.training.weights import local_weights, preprocessing_for

ARCHITECTURE = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def published() -> bytes:
    torch.manual_seed(0)
    file = io.BytesIO()
    torch.save(build(ARCHITECTURE, 10).state_dict(), file)
    return file.getvalue()


@pytest.fixture
def site(monkeypatch, tmp_path, published):
    """A web server with torchvision's published weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    name = f"net-{hashlib.sha256(published).hexdigest()[:8]}.pth"
    with serve(published) as site:
        place = SimpleNamespace(DEFAULT=SimpleNamespace(url=f"{site.url}/{name}"))
        monkeypatch.setattr(weights, "published", lambda _: place)
        yield site


@pytest.fixture
def s3(monkeypatch) -> FakeS3:
    s3 = FakeS3()
    monkeypatch.setattr(boto3, "client", lambda _: s3)
    return s3


def refused(source: str, architecture: str = ARCHITECTURE) -> str:
    with pytest.raises(NetworkError) as error, local_weights(source, architecture):
        pass
    return str(error.value)


def test_published_weights_are_downloaded_once(site, published):
    for _ in range(2):
        with local_weights("default", ARCHITECTURE) as path:
            assert path.read_bytes() == published
            build(ARCHITECTURE, 3, weights=path)
    assert len(site.requests) == 1


def test_a_download_that_fails_or_has_another_hash_is_not_kept_and_the_message_says_what_to_do(site):
    site.content, site.script = b"something else", [404]
    for reason in ("404", "invalid hash", "invalid hash"):  # nothing bad was left behind
        message = refused("default")
        assert all(part in message for part in (reason, "--weights FILE", "--weights s3://BUCKET/weights/"))


def test_an_object_in_s3_is_fetched_and_gone_afterwards(s3, published):
    s3.objects["weights/my net.pt"] = published
    with local_weights("s3://bucket/weights/my net.pt", ARCHITECTURE) as path:
        assert path.read_bytes() == published
    assert not path.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.pt", "--weights takes a file, s3://BUCKET/KEY"),
        ("s3://bucket/weights/none.pt", "A training job may read the data bucket below weights/"),
        ("s3://bucket", "is not of the form s3://BUCKET/KEY"),
    ],
)
def test_weights_that_do_not_come_are_named(s3, source, message):
    said = refused(source)
    assert source in said
    assert message in said


def test_without_boto3_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert "without boto3; install it, or name a local file" in refused("s3://bucket/weights/net.pt")


def test_nobody_publishes_weights_of_our_own_network():
    assert "nobody publishes weights of resnet9" in refused("default", "resnet9")


@pytest.fixture
def file(tmp_path) -> Path:
    """Weights that nobody knows."""
    (tmp_path / "weights.pt").write_bytes(b"weights")
    return tmp_path / "weights.pt"


def test_a_file_of_published_weights_is_known_by_its_content(file, monkeypatch):
    assert preprocessing_for("vit_l_16", file, None) == made_for("vit_l_16")
    url = network.published("vit_l_16").IMAGENET1K_SWAG_E2E_V1.url
    monkeypatch.setattr(network, "file_version", lambda _: f"sha256:{torch.hub.HASH_REGEX.search(url)[1]}00")
    assert preprocessing_for("vit_l_16", file, None) == Preprocessing(512, 512, interpolation="bicubic")


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_weights_of_an_artifact_are_for_what_its_card_says(place, tmp_path, s3):
    constants = {"input_size": 96, "resize_size": 100, "interpolation": "bicubic"}
    source = str(make_artifact(tmp_path, architecture="resnet18", **constants) / "weights.pt")
    if place == "bucket":
        for name in (CARD_FILE, "weights.pt"):
            s3.objects[f"weights/mine/{name}"] = (tmp_path / name).read_bytes()
        source = "s3://bucket/weights/mine/weights.pt"
    with local_weights(source, "resnet18") as path:
        expected = Preprocessing(96, 100, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
        assert preprocessing_for("resnet18", path, None) == expected
        assert preprocessing_for("resnet34", path, None) == made_for("resnet34")  # it is another network's card


def test_another_size_than_that_of_the_weights_is_a_warning_that_names_theirs(file, caplog):
    published = made_for("efficientnet_v2_l")
    assert preprocessing_for("efficientnet_v2_l", file, 240) == replace(published, input_size=240, resize_size=240)
    assert "--input-size 240" in caplog.text
    assert "for images of 480 pixels, resized to 480" in caplog.text
    caplog.clear()
    assert preprocessing_for("resnet18", file, 224) == made_for("resnet18") == preprocessing_for("resnet18", None, None)
    assert preprocessing_for("resnet18", None, 112).resize_size == 128
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
