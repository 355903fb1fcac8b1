"""Pushing a data set: only what changed is sent, what vanished is removed, an interrupted push goes on."""

from __future__ import annotations

import itertools
import os
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
from infra.bucket_layout import DATA_SETS

MANIFEST = "datasets/.manifests/dogs.json"


@pytest.fixture
def s3() -> FakeS3:
    return FakeS3()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in (("train", 8), ("valid", 2), ("test", 2)):
        for label, number in itertools.product(("a b", "ü"), range(count)):
            path = tmp_path / "dogs" / split / label / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{split}{label}{number}".encode())
    return tmp_path / "dogs"


def push(s3: FakeS3, folder: Path) -> PushResult:
    return push_data_set(FakeStage("local", s3=s3), read_data_set(folder), "dogs")


def test_what_changed_is_sent_and_what_vanished_is_removed(s3: FakeS3, folder: Path) -> None:
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
    assert all(key.startswith(f"{DATA_SETS}/") for key in s3.objects)  # where the notebook may write, too


def test_an_interrupted_push_goes_on_where_it_stopped(s3, folder, monkeypatch):
    arrived, store = itertools.count(1), s3.put_object

    def refuse(**request: Any) -> dict[str, str]:
        if request["Key"] != MANIFEST and next(arrived) > 10:
            error = {"Error": {"Code": "AccessDenied", "Message": "no"}}
            raise botocore.exceptions.ClientError(error, "PutObject")  # type: ignore[arg-type]
        return store(**request)

    with monkeypatch.context() as patch, pytest.raises(AwsError, match="AWS refused PutObject"):
        patch.setattr(s3, "put_object", refuse)
        push(s3, folder)
    assert push(s3, folder) == PushResult(uploaded=14, unchanged=10, removed=0)


def test_the_manifest_is_written_meanwhile_so_that_a_killed_push_goes_on_too(s3, folder, monkeypatch):
    monkeypatch.setattr(data_push, "_MANIFEST_INTERVAL", 0.0)
    push(s3, folder)
    assert s3.objects.earlier[MANIFEST]


@pytest.mark.parametrize(
    "damaged", [b"", b"[]", b'{"train/a b/0.jpg": 1}', b'{"train/a b/0.jpg": ["x"]}', b"[" * 10**5]
)
def test_after_a_damaged_manifest_everything_is_sent(s3: FakeS3, folder: Path, damaged: bytes) -> None:
    push(s3, folder)
    s3.objects[MANIFEST] = damaged
    assert push(s3, folder) == PushResult(uploaded=24, unchanged=0, removed=0)
    assert push(s3, folder) == PushResult(uploaded=0, unchanged=24, removed=0)


def test_an_image_that_cannot_be_read_is_named(s3: FakeS3, folder: Path) -> None:
    data_set = read_data_set(folder)
    (folder / "train/ü/3.jpg").unlink()  # after it was found
    with pytest.raises(NotReadyError, match=r"train/ü/3\.jpg cannot be read: No such file"):
        push_data_set(FakeStage("local", s3=s3), data_set, "dogs")


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9.jpg"), "a\nb.jpg", "/".join(["ü" * 120] * 5) + ".jpg"])
def test_a_name_that_no_key_can_have_is_refused_before_anything_is_sent(s3: FakeS3, folder: Path, name: str) -> None:
    path = folder / "train/ü" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(NotReadyError, match=r"is not a name in UTF-8|becomes a key of \d+ bytes"):
        push(s3, folder)
    assert not s3.objects


def test_an_image_that_cannot_be_deleted_is_an_error(s3: FakeS3, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(s3, folder)
    (folder / "train/ü/3.jpg").unlink()
    monkeypatch.setattr(s3, "delete_objects", lambda **_: {"Errors": [{"Key": "ü/3.jpg", "Message": "no"}]})
    with pytest.raises(AwsError, match=r"1 objects of bucket could not be deleted, such as .*3\.jpg: no"):
        push(s3, folder)


@pytest.mark.parametrize("name", ["", "a/b", "..", "Bichon Frisé", "x" * 64])
def test_a_name_that_would_not_do_in_a_key_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="does not do as a data set's name"):
        data_set_name(tmp_path / "bad name", name or None)
