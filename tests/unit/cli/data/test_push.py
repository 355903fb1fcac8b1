"""Pushing a data set: only what changed is sent, what vanished is removed, an interrupted push goes on."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config
from fake_s3 import FakeS3
from fake_stage import FakeStage

from cli.data import push as data_push
from cli.data.dataset import read_data_set
from cli.data.fast_put import FastPut
from cli.data.push import data_set_name, push_data_set
from cli.errors import AwsError, NotReadyError, UsageError


class Killed(BaseException):
    """The program is gone; nothing that it would do then happens."""


class PushS3(FakeS3):
    """The bucket of a push that may be refused, or die, on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[str] = []
        self.fails_after: int | None = None
        self.lives_for: int | None = None  # so many images; then nothing arrives any more, as from a dead program
        self.manifest_after: int | None = None  # later images wait until a manifest has been written
        self.manifest_written = threading.Event()
        self.undeletable = ""
        self._lock = threading.Lock()

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **options: Any) -> dict[str, str]:
        if self.manifest_after is not None and len(self.puts) >= self.manifest_after and Key.startswith("datasets/"):
            assert self.manifest_written.wait(30)
        with self._lock:
            if self.lives_for == 0:
                raise Killed
            if Key.startswith("manifests/"):
                self.manifest_written.set()
            else:
                if self.lives_for is not None:
                    self.lives_for -= 1
                if self.fails_after is not None and len(self.puts) >= self.fails_after:
                    raise botocore.exceptions.ClientError(
                        {"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject"
                    )
                self.puts.append(Key)
            return super().put_object(Bucket=Bucket, Key=Key, Body=Body, **options)

    def delete_objects(self, *, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        assert len(Delete["Objects"]) <= 1000
        keys = [item["Key"] for item in Delete["Objects"]]
        super().delete_objects(Bucket=Bucket, Delete={"Objects": [{"Key": k} for k in keys if k != self.undeletable]})
        return {"Errors": [{"Key": key, "Message": "no"} for key in keys if key == self.undeletable]}


SESSION = boto3.session.Session("key", "secret", region_name="eu-west-1")


def stage_of(s3: PushS3) -> FakeStage:
    return FakeStage("local", s3=s3, session=SESSION)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in (("train", 8), ("valid", 2), ("test", 2)):
        for label in ("a b", "ü"):
            for number in range(count):
                path = tmp_path / "dogs" / split / label / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(f"{split}{label}{number}".encode())
    return tmp_path / "dogs"


def test_everything_is_uploaded_once(folder: Path) -> None:
    s3 = PushS3()
    stage = stage_of(s3)
    first = push_data_set(stage, read_data_set(folder), "dogs")
    again = push_data_set(stage, read_data_set(folder), "dogs")
    assert (first.uploaded, first.unchanged, first.removed) == (24, 0, 0)
    assert (again.uploaded, again.unchanged, again.removed) == (0, 24, 0)
    assert s3.objects["datasets/dogs/train/a b/3.jpg"] == b"traina b3"


def test_changed_images_are_sent_again_and_vanished_ones_removed(folder: Path) -> None:
    s3 = PushS3()
    stage = stage_of(s3)
    push_data_set(stage, read_data_set(folder), "dogs")
    s3.objects["datasets/other/train/a/1.jpg"] = b"another data set"
    (folder / "train/a b/0.jpg").write_bytes(b"new")
    (folder / "test/ü/1.jpg").unlink()
    result = push_data_set(stage, read_data_set(folder), "dogs")
    assert (result.uploaded, result.unchanged, result.removed) == (1, 22, 1)
    assert s3.objects["datasets/dogs/train/a b/0.jpg"] == b"new"
    assert "datasets/dogs/test/ü/1.jpg" not in s3.objects
    assert "datasets/other/train/a/1.jpg" in s3.objects


def test_an_interrupted_push_goes_on_where_it_stopped(folder: Path) -> None:
    s3 = PushS3()
    stage = stage_of(s3)
    s3.fails_after = 10
    with pytest.raises(AwsError, match="AWS refused PutObject"):
        push_data_set(stage, read_data_set(folder), "dogs")
    s3.fails_after = None
    result = push_data_set(stage, read_data_set(folder), "dogs")
    assert (result.uploaded, result.unchanged) == (14, 10)


def test_what_something_else_has_overwritten_or_deleted_is_sent_again(folder: Path) -> None:
    s3 = PushS3()
    stage = stage_of(s3)
    push_data_set(stage, read_data_set(folder), "dogs")
    s3.objects["datasets/dogs/train/ü/5.jpg"] = b"another image"
    del s3.objects["datasets/dogs/train/ü/6.jpg"]
    assert push_data_set(stage, read_data_set(folder), "dogs").uploaded == 2
    assert s3.objects["datasets/dogs/train/ü/5.jpg"] == "trainü5".encode()


def test_what_a_killed_push_sent_is_not_taken_for_what_was_there(folder: Path) -> None:
    s3 = PushS3()
    stage = stage_of(s3)
    push_data_set(stage, read_data_set(folder), "dogs")
    image = folder / "train/a b/0.jpg"
    original = image.read_bytes()
    image.write_bytes(b"new")
    s3.lives_for = 1  # the new image arrives, and nothing after it, no manifest either
    with pytest.raises(Killed):
        push_data_set(stage, read_data_set(folder), "dogs")
    s3.lives_for = None
    image.write_bytes(original)
    push_data_set(stage, read_data_set(folder), "dogs")
    assert s3.objects["datasets/dogs/train/a b/0.jpg"] == original


def test_a_killed_push_has_kept_what_it_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_push, "_MANIFEST_INTERVAL", 0.0)
    s3 = PushS3()
    stage = stage_of(s3)
    s3.lives_for, s3.manifest_after = 20, 3
    with pytest.raises(Killed):
        push_data_set(stage, read_data_set(folder), "dogs")
    s3.lives_for = None
    assert push_data_set(stage, read_data_set(folder), "dogs").unchanged > 0


def test_an_image_that_cannot_be_read_is_named(folder: Path) -> None:
    s3, data_set = PushS3(), read_data_set(folder)
    (folder / "train" / "ü" / "3.jpg").unlink()  # after it was found
    with pytest.raises(NotReadyError, match=r"train/ü/3\.jpg cannot be read: No such file"):
        push_data_set(stage_of(s3), data_set, "dogs")


def test_an_image_that_cannot_be_deleted_is_an_error(folder: Path) -> None:
    s3 = PushS3()
    push_data_set(stage_of(s3), read_data_set(folder), "dogs")
    s3.undeletable = "datasets/dogs/train/ü/3.jpg"
    (folder / "train" / "ü" / "3.jpg").unlink()
    with pytest.raises(AwsError, match=r"1 objects of bucket could not be deleted, such as .*3\.jpg: no"):
        push_data_set(stage_of(s3), read_data_set(folder), "dogs")


@pytest.mark.parametrize("manifest", [b"", b"{", b'{"train/a b/0.jpg": "an entry of an earlier form"}'])
def test_a_manifest_that_says_nothing_only_costs_time(folder: Path, manifest: bytes) -> None:
    s3 = PushS3()
    s3.objects["manifests/dogs.json"] = manifest
    assert push_data_set(stage_of(s3), read_data_set(folder), "dogs").uploaded == 24


@pytest.mark.parametrize("name", ["", "a/b", "..", "Bichon Frisé", "x" * 64])
def test_a_name_that_would_not_do_in_a_key_is_refused(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "bad name"
    with pytest.raises(UsageError, match="does not do as a data set's name"):
        data_set_name(directory, name or None)


class Recorder(BaseHTTPRequestHandler):
    """An S3 that verifies the checksum, and that a client's own credentials signed the request."""

    protocol_version = "HTTP/1.1"
    arrived: ClassVar[dict[str, bytes]] = {}
    statuses: ClassVar[list[int]] = []

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.statuses.pop() if self.statuses else 200
        if status == 200:
            checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
            assert self.headers.get("x-amz-checksum-sha256", checksum) == checksum
            assert "x-amz-content-sha256" in self.headers["Authorization"]
            self.arrived[unquote(self.path)] = body
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Iterator[FastPut]:
    """Puts into a `Recorder`."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Recorder, "arrived", {})
    monkeypatch.setattr(Recorder, "statuses", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    session = boto3.session.Session("key", "secret", region_name="eu-west-1")
    config = Config(signature_version="s3v4", retries={"max_attempts": 3, "mode": "standard"})
    s3 = session.client("s3", endpoint_url=f"http://127.0.0.1:{server.server_port}", config=config)
    yield FastPut(session, s3, "bucket", 2)
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_object_is_put_signed_and_with_its_checksum(put: FastPut) -> None:
    assert put("datasets/dogs/train/a b/ü+1.jpg", b"bytes") == f'"{hashlib.md5(b"bytes").hexdigest()}"'
    assert Recorder.arrived == {"/bucket/datasets/dogs/train/a b/ü+1.jpg": b"bytes"}


def test_what_is_refused_is_repeated_with_boto3_s_retries_and_errors(put: FastPut) -> None:
    Recorder.statuses[:] = [503, 503]
    put("a.jpg", b"bytes")
    assert Recorder.arrived == {"/bucket/a.jpg": b"bytes"}
    Recorder.statuses[:] = [403, 403]
    with pytest.raises(botocore.exceptions.ClientError, match="403"):
        put("b.jpg", b"bytes")
