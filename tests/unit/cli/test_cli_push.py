"""Pushing a data set: only what changed is sent, what vanished is removed, an interrupted push goes on."""

from __future__ import annotations

import hashlib
import io
import threading
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from fake_stage import FakeStage

from cli.data import push as data_push
from cli.data.dataset import read_data_set
from cli.data.push import data_set_name, push_data_set
from cli.errors import AwsError, NotReadyError, UsageError


class Killed(BaseException):
    """The program is gone; nothing that it would do then happens."""


class FakeS3:
    """The five S3 operations that a push uses, on a dictionary."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.fails_after: int | None = None
        self.lives_for: int | None = None  # so many pictures; then nothing arrives any more, as from a dead program
        self.manifest_after: int | None = None  # later pictures wait until a manifest has been written
        self.manifest_written = threading.Event()
        self.undeletable = ""
        self._lock = threading.Lock()

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **_: Any) -> dict[str, str]:
        if self.manifest_after is not None and len(self.puts) >= self.manifest_after and Key.startswith("datasets/"):
            assert self.manifest_written.wait(30)
        with self._lock:
            if self.lives_for == 0:
                raise Killed
            if Key.startswith("manifests/"):
                self.manifest_written.set()
            elif Key.startswith("datasets/"):
                if self.lives_for is not None:
                    self.lives_for -= 1
                if self.fails_after is not None and len(self.puts) >= self.fails_after:
                    raise botocore.exceptions.ClientError(
                        {"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject"
                    )
                self.puts.append(Key)
            self.objects[Key] = Body
            return {"ETag": self._etag(Key)}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        if Key not in self.objects:
            raise botocore.exceptions.ClientError({"Error": {"Code": "NoSuchKey", "Message": ""}}, "GetObject")
        return {"Body": io.BytesIO(self.objects[Key])}

    def get_paginator(self, _: str) -> FakeS3:
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> list[dict[str, Any]]:
        found = [{"Key": key, "ETag": self._etag(key)} for key in self.objects if key.startswith(Prefix)]
        return [{"Contents": found}, {}]

    def _etag(self, key: str) -> str:
        return f'"{hashlib.md5(self.objects[key]).hexdigest()}"'

    def delete_objects(self, *, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        assert len(Delete["Objects"]) <= 1000
        keys = [item["Key"] for item in Delete["Objects"]]
        for key in keys:
            if key != self.undeletable:
                del self.objects[key]
        return {"Errors": [{"Key": key, "Message": "no"} for key in keys if key == self.undeletable]}


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
    s3 = FakeS3()
    stage = FakeStage("local", s3=s3)
    first = push_data_set(stage, read_data_set(folder), "dogs")
    again = push_data_set(stage, read_data_set(folder), "dogs")
    assert (first.uploaded, first.unchanged, first.removed) == (24, 0, 0)
    assert (again.uploaded, again.unchanged, again.removed) == (0, 24, 0)
    assert s3.objects["datasets/dogs/train/a b/3.jpg"] == b"traina b3"


def test_changed_pictures_are_sent_again_and_vanished_ones_removed(folder: Path) -> None:
    s3 = FakeS3()
    stage = FakeStage("local", s3=s3)
    push_data_set(stage, read_data_set(folder), "dogs")
    s3.objects["datasets/other/train/a/1.jpg"] = b"another data set"
    (folder / "train/a b/0.jpg").write_bytes(b"new")
    (folder / "test/ü/1.jpg").unlink()
    result = push_data_set(stage, read_data_set(folder), "dogs")
    assert (result.uploaded, result.unchanged, result.removed) == (1, 22, 1)
    assert s3.objects["datasets/dogs/train/a b/0.jpg"] == b"new"
    assert "datasets/dogs/test/ü/1.jpg" not in s3.objects
    assert "datasets/other/train/a/1.jpg" in s3.objects


def test_a_picture_deleted_from_the_bucket_is_sent_again(folder: Path) -> None:
    s3 = FakeS3()
    stage = FakeStage("local", s3=s3)
    push_data_set(stage, read_data_set(folder), "dogs")
    del s3.objects["datasets/dogs/train/ü/5.jpg"]
    assert push_data_set(stage, read_data_set(folder), "dogs").uploaded == 1


def test_an_interrupted_push_goes_on_where_it_stopped(folder: Path) -> None:
    s3 = FakeS3()
    stage = FakeStage("local", s3=s3)
    s3.fails_after = 10
    with pytest.raises(AwsError, match="AWS refused PutObject"):
        push_data_set(stage, read_data_set(folder), "dogs")
    s3.fails_after = None
    result = push_data_set(stage, read_data_set(folder), "dogs")
    assert (result.uploaded, result.unchanged) == (14, 10)


def test_a_picture_that_something_else_has_overwritten_is_sent_again(folder: Path) -> None:
    s3 = FakeS3()
    stage = FakeStage("local", s3=s3)
    push_data_set(stage, read_data_set(folder), "dogs")
    s3.objects["datasets/dogs/train/ü/5.jpg"] = b"another picture"
    assert push_data_set(stage, read_data_set(folder), "dogs").uploaded == 1
    assert s3.objects["datasets/dogs/train/ü/5.jpg"] == "trainü5".encode()


def test_what_a_killed_push_sent_is_not_taken_for_what_was_there(folder: Path) -> None:
    s3 = FakeS3()
    stage = FakeStage("local", s3=s3)
    push_data_set(stage, read_data_set(folder), "dogs")
    picture = folder / "train/a b/0.jpg"
    original = picture.read_bytes()
    picture.write_bytes(b"new")
    s3.lives_for = 1  # the new picture arrives, and nothing after it, no manifest either
    with pytest.raises(Killed):
        push_data_set(stage, read_data_set(folder), "dogs")
    s3.lives_for = None
    picture.write_bytes(original)
    push_data_set(stage, read_data_set(folder), "dogs")
    assert s3.objects["datasets/dogs/train/a b/0.jpg"] == original


def test_a_killed_push_has_kept_what_it_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_push, "_MANIFEST_INTERVAL", 0.0)
    s3 = FakeS3()
    stage = FakeStage("local", s3=s3)
    s3.lives_for, s3.manifest_after = 20, 3
    with pytest.raises(Killed):
        push_data_set(stage, read_data_set(folder), "dogs")
    s3.lives_for = None
    assert push_data_set(stage, read_data_set(folder), "dogs").unchanged > 0


def test_a_picture_that_cannot_be_read_is_named(folder: Path) -> None:
    s3, data_set = FakeS3(), read_data_set(folder)
    (folder / "train" / "ü" / "3.jpg").unlink()  # after it was found
    with pytest.raises(NotReadyError, match=r"train/ü/3\.jpg cannot be read: No such file"):
        push_data_set(FakeStage("local", s3=s3), data_set, "dogs")


def test_a_picture_that_cannot_be_deleted_is_an_error(folder: Path) -> None:
    s3 = FakeS3()
    push_data_set(FakeStage("local", s3=s3), read_data_set(folder), "dogs")
    s3.undeletable = "datasets/dogs/train/ü/3.jpg"
    (folder / "train" / "ü" / "3.jpg").unlink()
    with pytest.raises(AwsError, match=r"1 objects of bucket could not be deleted, such as .*3\.jpg: no"):
        push_data_set(FakeStage("local", s3=s3), read_data_set(folder), "dogs")


@pytest.mark.parametrize("manifest", [b"", b"{", b'{"train/a b/0.jpg": "an entry of an earlier form"}'])
def test_a_manifest_that_says_nothing_only_costs_time(folder: Path, manifest: bytes) -> None:
    s3 = FakeS3()
    s3.objects["manifests/dogs.json"] = manifest
    assert push_data_set(FakeStage("local", s3=s3), read_data_set(folder), "dogs").uploaded == 24


@pytest.mark.parametrize("name", ["", "a/b", "..", "Bichon Frisé", "x" * 64])
def test_a_name_that_would_not_do_in_a_key_is_refused(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "bad name"
    with pytest.raises(UsageError, match="does not do as a data set's name"):
        data_set_name(directory, name or None)
