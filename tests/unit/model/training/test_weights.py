"""Where first weights come from, and what is said when they do not come."""

from __future__ import annotations

import hashlib
import io
import sys
import threading
from types import SimpleNamespace

import boto3
import pytest
import torch
from fake_s3 import FakeS3
from file_server import FileServer

from model.core.network import NetworkError, build
from model.training import weights
from model.training.weights import default_input_size, local_weights

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
    site = FileServer(published)
    thread = threading.Thread(target=site.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    name = f"net-{hashlib.sha256(published).hexdigest()[:8]}.pth"
    monkeypatch.setattr(weights, "_published", lambda _: SimpleNamespace(url=f"{site.url}/{name}"))
    yield site
    site.shutdown()
    thread.join()
    site.server_close()


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


def test_published_weights_bring_their_size():
    assert (default_input_size("none", "resnet50"), default_input_size("default", "resnet50")) == (64, 224)
    assert "publishes no weights of resnet9" in refused("default", "resnet9")
