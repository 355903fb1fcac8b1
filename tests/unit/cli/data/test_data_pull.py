"""`kennel data pull`, from the address to the checked folder."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, serve
from training_fixtures import write_data_set
from urllib3.util.retry import time as retry_time


def zipped(tmp_path: Path, train: int) -> bytes:
    """A data set of so many pictures per class, as `dogImages/…` in a zip."""
    folder, file = write_data_set(tmp_path / f"original-{train}", train=train, valid=2, test=2), io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, f"dogImages/{path.relative_to(folder).as_posix()}")
    shutil.rmtree(folder)
    return file.getvalue()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    with serve(zipped(tmp_path, 12)) as server:
        yield server


@pytest.fixture
def pull(monkeypatch: pytest.MonkeyPatch, kennel, tmp_path: Path):
    """Runs `kennel data pull dogs` in a folder of its own; gives exit code and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(retry_time, "sleep", lambda seconds: None)

    def run(url: str, *arguments: str) -> tuple[int, str]:
        code, out, err = kennel("pull", "dogs", "--url", url, *arguments)
        return code, out + err

    return run


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_it_ends_with_a_checked_data_set_and_a_second_pull_does_nothing(
    pull, server: FileServer, tmp_path: Path
) -> None:
    code, output = pull(server.url)
    assert code == 0, output
    assert sha256(server.content) in output
    assert len(list(Path("dogs/train/001.Disc_hound").iterdir())) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dogs", "dogs.source.json"]
    source = json.loads(Path("dogs.source.json").read_text())
    assert (source["url"], source["sha256"]) == (server.url, sha256(server.content))
    code, output = pull(server.url)
    assert code == 0 and "was pulled from there on" in output
    assert len(server.requests) == 1


def test_another_archive_than_the_first_time_is_refused_until_it_is_accepted(
    pull, server: FileServer, tmp_path: Path
) -> None:
    pull(server.url)
    shutil.rmtree("dogs")
    first, server.content, server.etag = sha256(server.content), zipped(tmp_path, 11), '"two"'
    code, output = pull(server.url)
    assert code == 3
    assert first in output and f"--sha256 {sha256(server.content)}" in output
    assert not Path("dogs").exists()
    requests = len(server.requests)
    code, output = pull(server.url, "--sha256", sha256(server.content))
    assert code == 0, output
    assert len(server.requests) == requests  # it had been downloaded
    assert len(list(Path("dogs/train/001.Disc_hound").iterdir())) == 11


@pytest.mark.parametrize(
    ("there", "arguments", "code", "complaint"),
    [
        (lambda: Path("dogs/mine").mkdir(parents=True), [], 3, "was not pulled"),
        (lambda: Path("dogs.source.json").write_text("{"), [], 3, "dogs.source.json cannot be read"),
        (lambda: Path("dogs.zip").mkdir(), [], 3, "dogs.zip is a folder"),
        (lambda: None, ["--sha256", "g" * 64], 2, "64 hexadecimal digits"),
        (lambda: None, ["--url", "http://[::1"], 3, "is no web address"),
    ],
)
def test_what_cannot_be_is_said_before_the_download(
    pull, server: FileServer, there, arguments: list[str], code: int, complaint: str
) -> None:
    there()
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    found, output = pull(server.url, *arguments)
    assert (found, complaint in output) == (code, True)
    assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before
    assert not server.requests


def test_what_is_no_archive_leaves_nothing_to_stumble_over(pull, server: FileServer, tmp_path: Path) -> None:
    good, junk = server.content, b"<html>Sign in to this network</html>"
    server.content = junk
    code, output = pull(server.url)
    assert code == 3 and "is no zip archive" in output
    assert not list(tmp_path.iterdir())
    server.content, server.etag = good, '"two"'
    assert pull(server.url)[0] == 0
    shutil.rmtree("dogs")
    known = Path("dogs.source.json").read_bytes()
    server.content, server.etag = junk, '"three"'
    assert pull(server.url, "--sha256", sha256(junk))[0] == 3
    assert Path("dogs.source.json").read_bytes() == known  # its checksum is still what counts


def test_an_archive_that_a_person_put_there_is_used_and_kept(pull, server: FileServer) -> None:
    server.script = [("cut", 1000), *[503] * 9]
    assert pull(server.url)[0] == 3  # a part of it is there, too
    Path("dogs.zip").write_bytes(server.content)
    server.requests.clear()
    code, output = pull(server.url)
    assert code == 0, output
    assert not server.requests
    assert Path("dogs.zip").read_bytes() == server.content and Path("dogs/train").is_dir()


def test_another_query_may_be_another_data_set(pull, server: FileServer) -> None:
    code, output = pull(server.url, "--sha256", "0" * 64)
    assert code == 3 and "is not what was asked for" in output
    pull(server.url + "?id=1&Signature=a")
    assert len(server.requests) == 2  # what was downloaded from another address is not used
    code, output = pull(server.url + "?id=1&Signature=b")
    assert code == 0 and "was pulled from there on" in output
    code, output = pull(server.url + "?id=2&Signature=b")
    assert code == 3 and "with another query in the address" in output
    assert len(server.requests) == 2


def test_secrets_in_the_address_are_not_written_anywhere(pull, server: FileServer) -> None:
    url = server.url.replace("//", "//user:hush@") + "?token=hush"
    server.script = [503]
    code, output = pull(url)
    assert code == 0, output
    code, refused = pull(url.replace("http://", "https://"))  # the server speaks no TLS
    assert code == 3
    assert "hush" not in output + refused + Path("dogs.source.json").read_text()


def test_two_pulls_do_not_write_the_same_files(pull, server: FileServer, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        code, output = pull(server.url)
    finally:
        os.close(descriptor)
    assert (code, "Another kennel data pull" in output) == (3, True)
    assert not server.requests
