"""Pushing a data set: only what changed is sent, what vanished is removed, an interrupted push goes on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from fake_s3 import FakeS3
from fake_stage import FakeStage

from cli.data import push as data_push
from cli.data.dataset import read_data_set
from cli.data.push import PushResult, data_set_name, push_data_set
from cli.errors import AwsError, NotReadyError, UsageError

REFUSED = botocore.exceptions.ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")


class Killed(BaseException):
    """The program is gone; nothing that it would do then happens."""


class PushS3(FakeS3):
    """The bucket of a push that may be refused, or die, on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.images_left = 1000  # so many more arrive
        self.then: BaseException = REFUSED
        self.manifest_before = -1  # with so many left, one waits for a manifest
        self.manifest_written = threading.Event()
        self._lock = threading.Lock()

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **options: Any) -> dict[str, str]:
        is_image = Key.startswith("datasets/")
        if is_image and self.images_left <= self.manifest_before:
            assert self.manifest_written.wait(30)
        with self._lock:
            if not self.images_left and (is_image or self.then is not REFUSED):
                raise self.then
            if is_image:
                self.images_left -= 1
            else:
                self.manifest_written.set()
            return super().put_object(Bucket=Bucket, Key=Key, Body=Body, **options)


@pytest.fixture
def s3() -> PushS3:
    return PushS3()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in (("train", 8), ("valid", 2), ("test", 2)):
        for label in ("a b", "ü"):
            for number in range(count):
                path = tmp_path / "dogs" / split / label / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(f"{split}{label}{number}".encode())
    return tmp_path / "dogs"


def push(s3: PushS3, folder: Path) -> PushResult:
    return push_data_set(FakeStage("local", s3=s3), read_data_set(folder), "dogs")


def test_what_changed_is_sent_and_what_vanished_is_removed(s3: PushS3, folder: Path) -> None:
    assert push(s3, folder) == PushResult(uploaded=24, unchanged=0, removed=0)
    s3.objects["datasets/other/train/a/1.jpg"] = b"another data set"
    s3.objects["datasets/dogs/train/ü/5.jpg"] = b"overwritten by something else"
    del s3.objects["datasets/dogs/train/ü/6.jpg"]
    (folder / "train/a b/0.jpg").write_bytes(b"new")
    (folder / "test/ü/1.jpg").unlink()
    assert push(s3, folder) == PushResult(uploaded=3, unchanged=20, removed=1)
    sent = {key.removeprefix("datasets/dogs/"): body for key, body in s3.objects.items() if "datasets/dogs/" in key}
    assert sent == {image.key: image.path.read_bytes() for image in read_data_set(folder).images}
    assert "datasets/other/train/a/1.jpg" in s3.objects


def test_an_interrupted_push_goes_on_where_it_stopped(s3: PushS3, folder: Path) -> None:
    s3.images_left = 10
    with pytest.raises(AwsError, match="AWS refused PutObject"):
        push(s3, folder)
    s3.images_left = 1000
    assert push(s3, folder) == PushResult(uploaded=14, unchanged=10, removed=0)


def test_what_a_killed_push_sent_is_not_taken_for_what_was_there(s3: PushS3, folder: Path) -> None:
    push(s3, folder)
    image = folder / "train/a b/0.jpg"
    original = image.read_bytes()
    image.write_bytes(b"new")
    s3.images_left, s3.then = 1, Killed()  # the new image arrives, and nothing after it, no manifest either
    with pytest.raises(Killed):
        push(s3, folder)
    s3.images_left = 1000
    image.write_bytes(original)
    push(s3, folder)
    assert s3.objects["datasets/dogs/train/a b/0.jpg"] == original


def test_a_killed_push_has_kept_what_it_sent(s3: PushS3, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_push, "_MANIFEST_INTERVAL", 0.0)
    s3.images_left, s3.manifest_before, s3.then = 20, 17, Killed()
    with pytest.raises(Killed):
        push(s3, folder)
    s3.images_left = 1000
    assert push(s3, folder).unchanged > 0


def test_an_image_that_cannot_be_read_is_named(s3: PushS3, folder: Path) -> None:
    data_set = read_data_set(folder)
    (folder / "train" / "ü" / "3.jpg").unlink()  # after it was found
    with pytest.raises(NotReadyError, match=r"train/ü/3\.jpg cannot be read: No such file"):
        push_data_set(FakeStage("local", s3=s3), data_set, "dogs")


def test_an_image_that_cannot_be_deleted_is_an_error(s3: PushS3, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(s3, folder)
    (folder / "train" / "ü" / "3.jpg").unlink()
    monkeypatch.setattr(s3, "delete_objects", lambda **_: {"Errors": [{"Key": "ü/3.jpg", "Message": "no"}]})
    with pytest.raises(AwsError, match=r"1 objects of bucket could not be deleted, such as .*3\.jpg: no"):
        push(s3, folder)


@pytest.mark.parametrize("manifest", [b"{", b'{"train/a b/0.jpg": "an entry of an earlier form"}'])
def test_a_manifest_that_says_nothing_only_costs_time(s3: PushS3, folder: Path, manifest: bytes) -> None:
    s3.objects["manifests/dogs.json"] = manifest
    assert push(s3, folder).uploaded == 24


@pytest.mark.parametrize("name", ["", "a/b", "..", "Bichon Frisé", "x" * 64])
def test_a_name_that_would_not_do_in_a_key_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="does not do as a data set's name"):
        data_set_name(tmp_path / "bad name", name or None)
