"""Where first weights come from, and what is said when they do not come."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from model.core.network import NetworkError, architectures, build, torchvision_models
from model.training import weights
from model.training.weights import default_input_size, local_weights

ARCHITECTURE = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def published() -> bytes:
    torch.manual_seed(0)
    file = io.BytesIO()
    torch.save(build(ARCHITECTURE, 10).state_dict(), file)
    return file.getvalue()


class Site:
    """A web server and, for boto3, an S3 of one's own: it gives the files it has."""

    def __init__(self) -> None:
        files = self.files = {}
        requests = self.requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                content = files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.send_header("ETag", '"0"')
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content or b"")

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def site(monkeypatch, tmp_path, published) -> Iterator[Site]:
    """The site, with torchvision's published weights on it."""
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, args=(0.01,))
    thread.start()
    settings = {
        "TORCH_HOME": str(tmp_path / "torch"), "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": site.url, "AWS_MAX_ATTEMPTS": "1",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    name = f"net-{hashlib.sha256(published).hexdigest()[:8]}.pth"
    monkeypatch.setattr(weights, "_published", lambda _: SimpleNamespace(url=f"{site.url}/{name}"))
    site.files[f"/{name}"] = published
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


def refused(source: str, architecture: str = ARCHITECTURE) -> str:
    """Ask for weights that there are none of; what is said."""
    with pytest.raises(NetworkError) as error, local_weights(source, architecture):
        pass
    return str(error.value)


def test_a_file_is_taken_as_it_is_and_its_hash_is_logged(published, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "w.pt").write_bytes(published)
    with local_weights(str(tmp_path / "w.pt"), ARCHITECTURE) as path:
        assert path == tmp_path / "w.pt"
    assert f"w.pt, sha256:{hashlib.sha256(published).hexdigest()}" in caplog.text
    assert path.is_file()


def test_none_is_nothing_and_a_missing_file_names_all_that_is_allowed(tmp_path):
    with local_weights("none", ARCHITECTURE) as path:
        assert path is None
    assert "nowhere.pt; --weights takes a file, s3://BUCKET/KEY" in refused(str(tmp_path / "nowhere.pt"))


def test_published_weights_are_downloaded_once(site, published):
    for _ in range(2):
        with local_weights("default", ARCHITECTURE) as path:
            assert path.read_bytes() == published
            build(ARCHITECTURE, 3, weights=path)
    assert len(site.requests) == 1


def test_a_download_with_another_hash_is_refused_and_not_kept(site):
    (name,) = site.files
    site.files[name] = b"something else"
    for _ in range(2):  # the second time, too: nothing bad was left behind
        assert "invalid hash" in refused("default")


def test_without_a_network_the_message_says_what_to_do(site):
    site.files.clear()
    message = refused("default")
    assert all(part in message for part in ("404", "--weights FILE", "--weights s3://BUCKET/weights/"))


def test_networks_without_published_weights_are_refused():
    message = refused("default", "resnet9")
    assert "publishes no weights of resnet9" in message
    assert "--weights none" in message


def test_an_object_in_s3_is_fetched_and_gone_afterwards(site, published):
    site.files["/bucket/weights/my%20net.pt"] = published
    with local_weights("s3://bucket/weights/my net.pt", ARCHITECTURE) as path:
        assert path.read_bytes() == published
    assert not path.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("s3://bucket/weights/none.pt", "A training job may read the data bucket below weights/"),
        ("s3://bucket", "is not of the form s3://BUCKET/KEY"),
        ("s3:///key", "is not of the form s3://BUCKET/KEY"),
        ("s3://Not A Bucket/key", "cannot be fetched"),
    ],
)
def test_objects_that_do_not_come_are_named(site, source, message):
    said = refused(source)
    assert source in said
    assert message in said


@pytest.mark.parametrize(
    ("source", "architecture", "size"),
    [("none", "resnet50", 64), ("some.pt", "resnet50", 64), ("default", "resnet50", 224), ("default", "vit_b_16", 224)],
)
def test_published_weights_bring_their_size(source, architecture, size):
    assert default_input_size(source, architecture) == size


def test_every_published_file_that_is_downloaded_has_its_hash_in_its_name():
    for architecture in architectures():
        if architecture != "resnet9":
            url = torchvision_models().get_model_weights(architecture).DEFAULT.url
            assert weights._HASH_IN_NAME.search(url), url
