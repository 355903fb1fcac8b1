"""Objects and archives from elsewhere end up below their folder, whole, or not at all; tests/security attacks them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from emulator_fixtures import FakeS3, tar_gz

from emulator.sagemaker import artifacts
from emulator.sagemaker.artifacts import ArtifactError


@pytest.mark.parametrize(
    ("url", "bucket", "key"),
    [
        ("s3://bucket/a/b c.tar.gz", "bucket", "a/b c.tar.gz"),
        ("s3://bucket", "bucket", ""),
        ("https://s3.eu-west-1.amazonaws.com/bucket/a/b.tar.gz", "bucket", "a/b.tar.gz"),
        ("https://s3.cn-north-1.amazonaws.com.cn/bucket/a%20b", "bucket", "a b"),
        ("https://my.bucket.s3.eu-west-1.amazonaws.com/a/b", "my.bucket", "a/b"),
    ],
)
def test_locations_are_understood(url: str, bucket: str, key: str) -> None:
    assert artifacts.parse_s3_url(url) == (bucket, key)


@pytest.mark.parametrize("url", ["bucket/key", "https://example.com/bucket/key", "s3:///key"])
def test_other_locations_are_refused(url: str) -> None:
    with pytest.raises(ArtifactError):
        artifacts.parse_s3_url(url)


def test_programs_stay_executable_and_nothing_gets_privileges_or_an_absolute_name(tmp_path: Path) -> None:
    (tmp_path / "m.tar.gz").write_bytes(tar_gz({"code/serve": b"#!", "/abs/file": b"x"}, mode=0o6757))
    artifacts.unpack(tmp_path / "m.tar.gz", tmp_path / "inside")
    assert (tmp_path / "inside/code/serve").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "inside/abs/file").read_bytes() == b"x"


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "flipped"])
def test_a_damaged_archive_is_called_that(tmp_path: Path, damage: str) -> None:
    content = bytearray(tar_gz({"file": os.urandom(50_000)}))
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    content = {"empty": b"", "text": b"not an archive", "truncated": content[:20_000]}.get(damage, content)
    (tmp_path / "m.tar.gz").write_bytes(content)
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
        ("none", []),
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


def test_outputs_of_several_folders_are_packed_as_one(tmp_path: Path) -> None:
    for folder, name in (("one", "model"), ("two", "model"), ("two", "sub/extra")):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{folder}/{name}")
    assert artifacts.pack([tmp_path / "one", tmp_path / "two"], tmp_path / "m.tar.gz")
    artifacts.unpack(tmp_path / "m.tar.gz", tmp_path / "out")
    assert (tmp_path / "out/model").read_text() == "one/model"
    assert (tmp_path / "out/sub/extra").read_text() == "two/sub/extra"
