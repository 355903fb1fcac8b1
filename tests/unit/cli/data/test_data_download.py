"""A download goes on where it stopped, never mixes two versions of a file, and knows when to give up."""

from __future__ import annotations

import random
import shutil
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from file_server import FileServer, serve
from urllib3.util.retry import time as retry_time

from cli.data.download import download
from cli.errors import NotReadyError

OLD, NEW = random.Random(1).randbytes(1_500_000), random.Random(2).randbytes(1_400_000)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve(OLD) as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "dogs.zip.part"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(retry_time, "sleep", waits.append)
    return waits


def fetch(server: FileServer, target: Path, url: str = "") -> None:
    download(url or server.url, target, report=lambda done, total: None)


def fail(server: FileServer, target: Path, url: str = "") -> str:
    with pytest.raises(NotReadyError) as refused:
        fetch(server, target, url)
    return str(refused.value) + refused.value.hint


def interrupted(server: FileServer, target: Path) -> None:
    """Leave the 600,000 bytes that a first, broken-off run leaves."""
    server.script = [("cut", 600_000)] + [503] * 5
    fail(server, target)
    assert target.stat().st_size == 600_000
    server.script = []
    server.requests.clear()


def test_any_number_of_breaks_anywhere_leaves_the_file_whole_and_sends_no_byte_twice(
    server: FileServer, target: Path
) -> None:
    counts = [random.Random(number).randrange(1, 100_000) for number in range(25)]
    server.script = [("cut", count) for count in counts]
    fetch(server, target)
    assert target.read_bytes() == OLD
    starts = [sum(counts[:number]) for number in range(1, 26)]
    assert [(head["Range"], head["If-Range"]) for head in server.requests[1:]] == [
        (f"bytes={start}-", '"one"') for start in starts
    ]


CHANGES = {
    "nothing": {},
    "the file": {"content": NEW, "etag": '"two"'},
    "the file, and If-Range is ignored": {"content": NEW, "etag": '"two"', "honours_if_range": False},
    "the file, not its length": {"content": OLD[::-1], "etag": '"two"', "honours_if_range": False},
    "the file, without an ETag": {"content": NEW, "etag": "", "honours_if_range": False},
    "the file, now shorter than the part": {"content": NEW[:1000], "honours_if_range": False},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_later_run_goes_on_from_the_part_unless_the_file_has_changed(
    server: FileServer, target: Path, change: str
) -> None:
    interrupted(server, target)
    for name, value in CHANGES[change].items():
        setattr(server, name, value)
    fetch(server, target, server.url + "?Signature=new")
    assert server.requests[0]["Range"] == "bytes=600000-"
    assert target.read_bytes() == server.content


@pytest.mark.parametrize("behaviour", [{"etag": ""}, {"etag": 'W/"one"'}, {"ranges": False}], ids=str)
def test_where_it_cannot_go_on_everything_is_sent_again(server: FileServer, target: Path, behaviour: dict) -> None:
    for name, value in behaviour.items():
        setattr(server, name, value)
    server.script = [("cut", 900_000)]
    fetch(server, target)
    assert target.read_bytes() == OLD


@pytest.mark.parametrize("record", [None, "{", '{"address": "another", "size": 1500000, "etag": "\\"one\\""}'])
def test_a_part_of_another_or_an_unknown_address_is_not_continued(
    server: FileServer, target: Path, record: str | None
) -> None:
    interrupted(server, target)
    if record is not None:
        target.with_name(f".{target.name}.version.json").write_text(record)
    fetch(server, target, server.url if record else server.url + "?id=2")
    assert target.read_bytes() == OLD
    assert "Range" not in server.requests[0]


def test_busy_servers_are_asked_again_when_they_say(server: FileServer, target: Path, waits: list[float]) -> None:
    server.script, server.headers = [503, 429, 503], {"Retry-After": "7"}
    fetch(server, target)
    assert waits == [7, 7, 7]
    assert target.read_bytes() == OLD


@pytest.mark.parametrize(("status", "asked"), [(404, []), (500, [2, 4, 8])])  # after a second attempt at once
def test_a_refusal_ends_it_and_an_error_after_some_attempts(
    server: FileServer, target: Path, waits: list[float], status: int, asked: list[int]
) -> None:
    server.script = [status] * 99
    assert f"answers {status}" in fail(server, target)
    assert waits == asked


def test_breaking_off_at_the_same_place_for_ever_is_no_progress(server: FileServer, target: Path) -> None:
    server.ranges, server.script = False, [("cut", 500_000)] * 99
    assert "Given up after 5 attempts" in fail(server, target)
    assert len(server.requests) < 10


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"Content-Length: 1000\r\n\r\n-1\r\n" + bytes(64_000_000),  # urllib3 would read all of it into memory
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n123456789",
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(64_000_000),
    ],
    ids=["chunked", "gzip", "without its length"],
)
def test_a_file_that_may_be_longer_than_it_says_is_refused(server: FileServer, target: Path, answer: bytes) -> None:
    server.script = [answer]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    try:
        assert "compressed or without its length" in fail(server, target)
        assert tracemalloc.get_traced_memory()[1] - before < 16_000_000
    finally:
        tracemalloc.stop()
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://user:hush@127.0.0.1:PORT/dogs.zip?token=hush", "Connection refused"),
        ("ftp://me:hush@example.org/dogs.zip", "it is no web address"),
        ("dogs.zip", "it is no web address"),
        ("http://[::1", "it is no web address"),
        ("http://a:hush", "it is no web address"),
    ],
)
def test_why_an_address_is_of_no_use_is_said_without_its_secrets(
    server: FileServer, target: Path, url: str, reason: str
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        message = fail(server, target, url.replace("PORT", str(nobody.getsockname()[1])))
    assert reason in message and "Nothing can be fetched from" in message
    assert "hush" not in message and "object at" not in message


def test_an_encrypted_address_must_not_lead_to_an_open_one(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = requests.Response()
    response.status_code, response.url = 200, "http://example.org/dogs.zip"
    monkeypatch.setattr(requests.Session, "get", lambda *_, **__: response)
    assert "without encryption" in fail(server, target, "https://example.org/dogs.zip")


def test_the_room_for_the_archive_and_its_content_is_looked_at_first(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 2_999_999))
    assert "are needed to download and unpack it" in fail(server, target)


def test_a_folder_that_cannot_be_made_is_named(server: FileServer, target: Path) -> None:
    target.touch()
    assert "dogs.zip.part cannot be made" in fail(server, target / "dogs.zip")
