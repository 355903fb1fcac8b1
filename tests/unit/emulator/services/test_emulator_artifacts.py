"""Objects and archives from elsewhere end up below their folder, whole, or not at all; tests/security attacks them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from emulator_fixtures import FakeS3, tar_gz

from emulator.sagemaker import artifacts
from emulator.sagemaker.artifacts import ArtifactError
from emulator.sagemaker.transform.job import find_inputs


def test_programs_stay_executable_and_nothing_gets_privileges_or_an_absolute_name(tmp_path: Path) -> None:
    (tmp_path / "m.tar.gz").write_bytes(tar_gz({"code/serve": b"#!", "/abs/file": b"x"}, mode=0o6757))
    artifacts.unpack(tmp_path / "m.tar.gz", tmp_path / "inside")
    assert (tmp_path / "inside/code/serve").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "inside/abs/file").read_bytes() == b"x"


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "flipped"])
def test_a_damaged_archive_is_called_that(tmp_path: Path, damage: str) -> None:
    whole = tar_gz({"file": os.urandom(50_000)})
    flipped = bytes([*whole[:25_000], whole[25_000] ^ 0xFF, *whole[25_001:]])
    content = {"empty": b"", "text": b"not an archive", "truncated": whole[:20_000], "flipped": flipped}
    (tmp_path / "m.tar.gz").write_bytes(content[damage])
    with pytest.raises(ArtifactError, match=r"m\.tar\.gz cannot be unpacked"):
        artifacts.unpack(tmp_path / "m.tar.gz", tmp_path / "inside")


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("data/", ["a", "b/c"]),
        ("data", ["data-old/a", "a", "b/c"]),
        ("data-", ["data-old/a"]),
        ("data/a", ["a"]),
        ("", ["dat", "data-old/a", "data/a", "data/b/c"]),
    ],
)
def test_a_prefix_is_the_beginning_of_names(prefix: str, names: list[str]) -> None:
    s3 = FakeS3(**{"data/a": b"", "data/b/c": b"", "data/": b"", "data-old/a": b"", "dat": b""})
    keys = artifacts.list_keys(s3, "bucket", prefix)
    assert [artifacts.relative_key(key, prefix) for key in keys] == names


@pytest.mark.parametrize("name", ["a/../../x", "/etc/x", ""])
def test_a_key_that_leaves_the_folder_is_refused_before_anything_is_fetched(tmp_path: Path, name: str) -> None:
    s3 = FakeS3(good=b"", bad=b"")
    with pytest.raises(ArtifactError, match="does not name a file"):
        artifacts.fetch_all(s3, "bucket", [("good", "good"), ("bad", name)], tmp_path / "inside")
    assert list(tmp_path.rglob("*")) == []


def names(s3: FakeS3, data_type: str, uri: str) -> list[str]:
    found = find_inputs(s3, {"S3DataType": data_type, "S3Uri": uri})
    return [f"{item.bucket}/{item.key} {item.name}" for item in found]


def test_inputs_of_a_manifest_keep_their_order_and_their_characters() -> None:
    manifest = json.dumps([{"prefix": "s3://other/in/"}, "z é.jpg", "a"], ensure_ascii=False)
    s3 = FakeS3(manifest=manifest.encode())
    assert names(s3, "ManifestFile", "s3://bucket/manifest") == ["other/in/z é.jpg z é.jpg", "other/in/a a"]


@pytest.mark.parametrize(
    "manifest",
    [b"\xff", b"[" * 100_000, b"{}", b"[]", b'["a"]', b'[{"prefix": 5}, "a"]', b'[{"prefix": "s3://b/"}, 1]'],
    ids=lambda manifest: repr(manifest[:30]),
)
def test_a_malformed_manifest_is_called_one(manifest: bytes) -> None:
    with pytest.raises(ArtifactError, match="is no manifest"):
        names(FakeS3(manifest=manifest), "ManifestFile", "s3://bucket/manifest")


def test_no_inputs_are_an_error() -> None:
    for s3, data_type in ((FakeS3(x=b'[{"prefix": "s3://b/"}]'), "ManifestFile"), (FakeS3(), "S3Prefix")):
        with pytest.raises(ArtifactError, match="no objects"):
            names(s3, data_type, "s3://bucket/x")
