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
        ("s3://bucket/", "bucket", ""),
        ("https://s3.eu-west-1.amazonaws.com/bucket/a/b.tar.gz", "bucket", "a/b.tar.gz"),
        ("https://s3.cn-north-1.amazonaws.com.cn/bucket/a%20b", "bucket", "a b"),
        ("https://my.bucket.s3.eu-west-1.amazonaws.com/a/b", "my.bucket", "a/b"),
    ],
)
def test_locations_are_understood(url: str, bucket: str, key: str) -> None:
    assert artifacts.parse_s3_url(url) == (bucket, key)


@pytest.mark.parametrize("url", ["", "bucket/key", "https://example.com/bucket/key", "file:///etc/passwd", "s3:///key"])
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
    ("prefix", "names"), [("data/", ["a", "b/c"]), ("data", ["data-old/a", "a", "b/c"])], ids=["folder", "beginning"]
)
def test_a_prefix_without_a_slash_at_its_end_stands_for_all_that_begins_so(prefix: str, names: list[str]) -> None:
    s3 = FakeS3(**{"data/a": b"", "data/b/c": b"", "data/": b"", "data-old/a": b"", "dat": b""})
    keys = artifacts.list_keys(s3, "bucket", prefix)
    assert [artifacts.relative_key(key, prefix) for key in keys] == names


def test_a_prefix_may_be_a_part_of_a_name_or_one_object_or_everything() -> None:
    s3 = FakeS3(**{"in/part-1": b"", "in/part-2": b"", "in/other": b""})

    def names(prefix: str) -> list[str]:
        return [artifacts.relative_key(key, prefix) for key in artifacts.list_keys(s3, "bucket", prefix)]

    assert names("in/part-") == ["part-1", "part-2"]
    assert names("in/other") == ["other"]
    assert names("") == ["in/other", "in/part-1", "in/part-2"]
    assert names("none") == []


def test_objects_are_fetched_into_their_folders(tmp_path: Path) -> None:
    s3 = FakeS3(**{f"k{number}": str(number).encode() for number in range(50)})
    artifacts.fetch_all(s3, "bucket", [(f"k{n}", f"é {n}/file") for n in range(50)], tmp_path)
    assert [(tmp_path / f"é {n}" / "file").read_text() for n in range(50)] == [str(n) for n in range(50)]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", ""])
def test_a_key_that_leaves_the_folder_is_refused_before_anything_is_fetched(tmp_path: Path, name: str) -> None:
    s3 = FakeS3(good=b"", bad=b"")
    with pytest.raises(ArtifactError, match="does not name a file"):
        artifacts.fetch_all(s3, "bucket", [("good", "good"), ("bad", name)], tmp_path / "inside")
    assert list(tmp_path.rglob("*")) == []


def test_what_s3_says_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"s3://bucket/gone: NoSuchKey: Not Found"):
        artifacts.fetch(FakeS3(), "bucket", "gone", tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_outputs_of_several_folders_are_packed_as_one(tmp_path: Path) -> None:
    for folder, name in (("one", "model"), ("two", "model"), ("two", "sub/extra")):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{folder}/{name}")
    assert artifacts.pack([tmp_path / "one", tmp_path / "two"], tmp_path / "m.tar.gz")
    artifacts.unpack(tmp_path / "m.tar.gz", tmp_path / "out")
    assert (tmp_path / "out/model").read_text() == "one/model"
    assert (tmp_path / "out/sub/extra").read_text() == "two/sub/extra"


def test_nothing_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert not artifacts.pack([tmp_path / "empty"], tmp_path / "m.tar.gz")
    assert not (tmp_path / "m.tar.gz").exists()
