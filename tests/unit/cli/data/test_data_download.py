"""A download goes on where it stopped and never mixes two versions; `kennel data pull`, from there to the folder."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from file_server import FileServer, serve
from training_fixtures import write_data_set
from urllib3.util.retry import time as retry_time

from cli.data.dataset import only_writer
from cli.data.download import download
from cli.errors import NotReadyError

OLD, NEW = random.Random(1).randbytes(1_500_000), random.Random(2).randbytes(1_400_000)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve(OLD) as server:
        yield server


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "dogs.zip.part"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(retry_time, "sleep", waits.append)
    return waits


def fetch(server: FileServer, part: Path, query: str = "") -> None:
    download(server.url + query, part, report=lambda done, total: None)


def fail(server: FileServer, part: Path) -> str:
    with pytest.raises(NotReadyError) as refused:
        fetch(server, part)
    return str(refused.value)


def interrupted(server: FileServer, part: Path) -> None:
    """Leave the 600,000 bytes that a first, broken-off run leaves."""
    server.script = [("cut", 600_000)] + [503] * 5
    fail(server, part)
    assert part.stat().st_size == 600_000
    server.script = []
    server.requests.clear()


def test_any_number_of_breaks_anywhere_leaves_the_file_whole_and_sends_no_byte_twice(server, part):
    counts = [random.Random(number).randrange(1, 100_000) for number in range(25)]
    server.script = [("cut", count) for count in counts]
    fetch(server, part)
    assert part.read_bytes() == OLD
    starts = [sum(counts[:number]) for number in range(1, 26)]
    assert [(head["Range"], head["If-Range"]) for head in server.requests[1:]] == [
        (f"bytes={start}-", '"one"') for start in starts
    ]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"content": NEW, "etag": '"two"'},
        {"content": NEW, "etag": '"two"', "honours_if_range": False},
        {"content": OLD[::-1], "etag": '"two"', "honours_if_range": False},
        {"content": NEW, "etag": "", "honours_if_range": False},
        {"content": NEW[:1000], "honours_if_range": False},
    ],
    ids=["same", "new", "new, mixed in", "new of the same length", "new without an ETag", "new, shorter than the part"],
)
def test_a_later_run_goes_on_from_the_part_unless_the_file_has_changed(server, part, change):
    interrupted(server, part)
    vars(server).update(change)
    fetch(server, part, "?Signature=new")
    assert server.requests[0]["Range"] == "bytes=600000-"
    assert part.read_bytes() == server.content


@pytest.mark.parametrize("behaviour", [{"etag": ""}, {"etag": 'W/"one"'}, {"ranges": False}], ids=str)
def test_where_it_cannot_go_on_everything_is_sent_again(server: FileServer, part: Path, behaviour: dict) -> None:
    vars(server).update(behaviour)
    server.script = [("cut", 900_000)]
    fetch(server, part)
    assert part.read_bytes() == OLD


@pytest.mark.parametrize(
    ("status", "headers", "waited"),
    [(404, {}, []), (500, {}, [2, 4, 8]), (503, {"Retry-After": "7"}, [7, 7, 7, 7])],  # 500: first again at once
)
def test_a_refusal_ends_it_and_an_error_after_some_attempts(server, part, waits, status, headers, waited):
    server.script, server.headers = [status] * 99, headers
    assert f"answers {status}" in fail(server, part)
    assert waits == waited


def test_breaking_off_at_the_same_place_for_ever_is_no_progress(server: FileServer, part: Path) -> None:
    server.ranges, server.script = False, [("cut", 500_000)] * 99
    assert "Given up after 5 attempts" in fail(server, part)
    assert len(server.requests) < 10


@pytest.mark.parametrize(
    "answer",
    [
        b"Transfer-Encoding: chunked\r\nContent-Length: 1000\r\n\r\n-1\r\n",  # urllib3 would read all that comes
        b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n123456789",
        b"\r\n" + bytes(64_000_000),
    ],
    ids=["chunked", "gzip", "without its length"],
)
def test_a_file_that_may_be_longer_than_it_says_is_refused(server: FileServer, part: Path, answer: bytes) -> None:
    server.script = [b"HTTP/1.1 200 OK\r\n" + answer]
    assert "compressed or without its length" in fail(server, part)
    assert not list(part.parent.iterdir())


def test_an_address_that_it_leads_to_is_not_said(server: FileServer, part: Path) -> None:
    location = b"ftp://me:hush@example.org/dogs.zip?X-Amz-Signature=hush"
    server.script = [b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"]
    assert "hush" not in (said := fail(server, part)) and "leads to no web address" in said


def test_an_encrypted_address_must_not_lead_to_an_open_one(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    response = requests.Response()
    response.status_code, response.url = 200, "http://example.org/dogs.zip"
    monkeypatch.setattr(requests.Session, "get", lambda *_, **__: response)
    with pytest.raises(NotReadyError, match="without encryption"):
        download("https://example.org/dogs.zip", part, report=lambda done, total: None)


def zipped(tmp_path: Path, train: int) -> bytes:
    """A data set of so many images per class, as `dogImages/…` in a zip."""
    folder = tmp_path / f"original-{train}"
    write_data_set(folder / "dogImages", train=train, valid=2, test=2)
    return Path(shutil.make_archive(str(folder), "zip", folder)).read_bytes()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FileServer]:
    with serve(zipped(tmp_path, 12)) as site:
        yield site


@pytest.fixture
def pull(monkeypatch: pytest.MonkeyPatch, kennel, tmp_path: Path):
    """Runs `kennel data pull dogs` in a folder of its own; gives exit code and output."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda url, *arguments: kennel("data", "pull", "dogs", "--url", url, *arguments)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_it_ends_with_a_checked_data_set_and_a_second_pull_does_nothing(pull, site: FileServer) -> None:
    code, output = pull(site.url)
    assert code == 0, output
    assert sha256(site.content) in output
    assert len(list(Path("dogs/train/001.Disc_hound").iterdir())) == 12
    assert sorted(path.name for path in Path().iterdir()) == ["dogs", "dogs.source.json"]
    source = json.loads(Path("dogs.source.json").read_text())
    assert (source["url"], source["sha256"]) == (site.url, sha256(site.content))
    code, output = pull(site.url)
    assert code == 0 and "was pulled from there on" in output
    assert len(site.requests) == 1


def test_another_archive_than_the_first_time_is_refused_until_it_is_accepted(pull, site, tmp_path):
    pull(site.url)
    shutil.rmtree("dogs")
    first, site.content, site.etag = sha256(site.content), zipped(tmp_path, 11), '"two"'
    code, output = pull(site.url)
    assert code == 3
    assert first in output and f"--sha256 {sha256(site.content)}" in output
    assert not Path("dogs").exists()
    code, output = pull(site.url, "--sha256", sha256(site.content))
    assert code == 0, output
    assert len(site.requests) == 2  # it had been downloaded
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
    pull, site: FileServer, there: str, arguments: list[str], code: int, complaint: str
) -> None:
    if there:
        Path(there).parent.mkdir(exist_ok=True)
        Path(there).write_text("{")
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    found, output = pull(site.url, *arguments)
    assert (found, complaint in output, "hush" in output) == (code, True, False)
    assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before
    assert not site.requests


def test_what_is_no_archive_leaves_nothing_to_stumble_over(pull, site: FileServer) -> None:
    good, site.content = site.content, b"<html>Sign in to this network</html>"
    code, output = pull(site.url)
    assert code == 3 and "is no zip archive" in output
    assert not list(Path().iterdir())
    site.content, site.etag = good, '"two"'
    assert pull(site.url)[0] == 0


def test_an_archive_that_a_person_put_there_is_used_and_kept(pull, site: FileServer) -> None:
    site.script = [("cut", 1000), *[503] * 9]
    assert pull(site.url)[0] == 3  # a part of it is there, too
    Path("dogs.zip").write_bytes(site.content)
    site.requests.clear()
    code, output = pull(site.url)
    assert code == 0, output
    assert not site.requests
    assert Path("dogs.zip").read_bytes() == site.content and Path("dogs/train").is_dir()


def test_another_query_may_be_another_data_set(pull, site: FileServer) -> None:
    code, output = pull(site.url, "--sha256", "0" * 64)
    assert code == 3 and "is not what was asked for" in output
    pull(site.url + "?id=1&Signature=a")
    assert len(site.requests) == 2  # what was downloaded from another address is not used
    code, output = pull(site.url + "?id=1&Signature=b")
    assert code == 0 and "was pulled from there on" in output
    code, output = pull(site.url + "?id=2&Signature=b")
    assert code == 3 and "another query is another address" in output
    assert len(site.requests) == 2


def test_secrets_in_the_address_are_not_written_anywhere(pull, site: FileServer) -> None:
    url = site.url.replace("//", "//user:hush@") + "?token=hush"
    site.script = [503]
    code, output = pull(url)
    assert code == 0, output
    shutil.rmtree("dogs")
    code, refused = pull(url.replace(site.url.split("/")[2], "127.0.0.1:1"))  # where nobody listens
    assert code == 3 and "Connection refused" in refused
    assert "hush" not in output + refused + Path("dogs.source.json").read_text()


def test_a_link_to_an_empty_folder_is_not_replaced(pull, site: FileServer, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    Path("dogs").symlink_to(tmp_path / "disk")
    code, output = pull(site.url)
    assert code == 3 and f"Name the folder that it leads to, {tmp_path / 'disk'}" in output
    assert Path("dogs").is_symlink() and not site.requests


def test_a_folder_without_a_name_is_refused(kennel, site: FileServer) -> None:
    code, output = kennel("data", "pull", "/", "--url", site.url)
    assert code == 2 and "name one below it" in output


def test_two_pulls_do_not_write_the_same_files(pull, site: FileServer) -> None:
    with only_writer(Path()):
        code, output = pull(site.url)
    assert (code, "Another kennel data command" in output) == (3, True)
    assert not site.requests
