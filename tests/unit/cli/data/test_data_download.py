"""A download goes on where it stopped, never mixes two versions of a file, and knows when to give up."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from file_server import FileServer, serve
from urllib3.util.retry import time as retry_time

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
