"""`kennel data pull`, from the address to the checked folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, serve
from training_fixtures import write_data_set
from urllib3.util.retry import time as retry_time

from cli.data.dataset import only_writer


def zipped(tmp_path: Path, train: int) -> bytes:
    """A data set of so many images per class, as `dogImages/…` in a zip."""
    folder = tmp_path / f"original-{train}"
    write_data_set(folder / "dogImages", train=train, valid=2, test=2)
    return Path(shutil.make_archive(str(folder), "zip", folder)).read_bytes()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    with serve(zipped(tmp_path, 12)) as server:
        yield server


@pytest.fixture
def pull(monkeypatch: pytest.MonkeyPatch, kennel, tmp_path: Path):
    """Runs `kennel data pull dogs` in a folder of its own; gives exit code and output."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(retry_time, "sleep", lambda seconds: None)
    return lambda url, *arguments: kennel("data", "pull", "dogs", "--url", url, *arguments)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_it_ends_with_a_checked_data_set_and_a_second_pull_does_nothing(pull, server: FileServer) -> None:
    code, output = pull(server.url)
    assert code == 0, output
    assert sha256(server.content) in output
    assert len(list(Path("dogs/train/001.Disc_hound").iterdir())) == 12
    assert sorted(path.name for path in Path().iterdir()) == ["dogs", "dogs.source.json"]
    source = json.loads(Path("dogs.source.json").read_text())
    assert (source["url"], source["sha256"]) == (server.url, sha256(server.content))
    code, output = pull(server.url)
    assert code == 0 and "was pulled from there on" in output
    assert len(server.requests) == 1


def test_another_archive_than_the_first_time_is_refused_until_it_is_accepted(pull, server, tmp_path):
    pull(server.url)
    shutil.rmtree("dogs")
    first, server.content, server.etag = sha256(server.content), zipped(tmp_path, 11), '"two"'
    code, output = pull(server.url)
    assert code == 3
    assert first in output and f"--sha256 {sha256(server.content)}" in output
    assert not Path("dogs").exists()
    code, output = pull(server.url, "--sha256", sha256(server.content))
    assert code == 0, output
    assert len(server.requests) == 2  # it had been downloaded
    assert len(list(Path("dogs/train/001.Disc_hound").iterdir())) == 11


@pytest.mark.parametrize(
    ("there", "arguments", "code", "complaint"),
    [
        ("dogs/mine", [], 3, "was not pulled"),
        ("dogs.source.json", [], 3, "dogs.source.json cannot be read"),
        ("", ["--sha256", "g" * 64], 2, "64 hexadecimal digits"),
        ("", ["--url", "ftp://me:hush@example.org/dogs.zip"], 3, "is no web address"),
        ("", ["--url", "http://[::1?hush"], 3, "is no web address"),
        ("", ["--url", "http://a:hush"], 3, "is no web address"),
    ],
)
def test_what_cannot_be_is_said_before_the_download_and_without_secrets(
    pull, server: FileServer, there: str, arguments: list[str], code: int, complaint: str
) -> None:
    if there:
        Path(there).parent.mkdir(exist_ok=True)
        Path(there).write_text("{")
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    found, output = pull(server.url, *arguments)
    assert (found, complaint in output, "hush" in output) == (code, True, False)
    assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before
    assert not server.requests


def test_what_is_no_archive_leaves_nothing_to_stumble_over(pull, server: FileServer) -> None:
    good, server.content = server.content, b"<html>Sign in to this network</html>"
    code, output = pull(server.url)
    assert code == 3 and "is no zip archive" in output
    assert not list(Path().iterdir())
    server.content, server.etag = good, '"two"'
    assert pull(server.url)[0] == 0


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
    assert code == 3 and "another query is another address" in output
    assert len(server.requests) == 2


def test_secrets_in_the_address_are_not_written_anywhere(pull, server: FileServer) -> None:
    url = server.url.replace("//", "//user:hush@") + "?token=hush"
    server.script = [503]
    code, output = pull(url)
    assert code == 0, output
    shutil.rmtree("dogs")
    server.shutdown()
    server.server_close()
    code, refused = pull(url)
    assert code == 3 and "Connection refused" in refused
    assert "hush" not in output + refused + Path("dogs.source.json").read_text()


def test_a_link_to_an_empty_folder_is_not_replaced(pull, server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    Path("dogs").symlink_to(tmp_path / "disk")
    code, output = pull(server.url)
    assert code == 3 and f"Name the folder that it leads to, {tmp_path / 'disk'}" in output
    assert Path("dogs").is_symlink() and not server.requests


def test_a_folder_without_a_name_is_refused(kennel, server: FileServer) -> None:
    code, output = kennel("data", "pull", "/", "--url", server.url)
    assert code == 2 and "name one below it" in output


def test_two_pulls_do_not_write_the_same_files(pull, server: FileServer) -> None:
    with only_writer(Path()):
        code, output = pull(server.url)
    assert (code, "Another kennel data command" in output) == (3, True)
    assert not server.requests
