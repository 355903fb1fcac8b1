"""A download goes on where it stopped, never mixes two versions of a file, and knows when to give up."""

from __future__ import annotations

import random
import re
import shutil
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from file_server import FileServer, serve
from urllib3.util.retry import time as retry_time

from cli.data import download as data_download
from cli.errors import NotReadyError

OLD, NEW = random.Random(1).randbytes(1_500_000), random.Random(2).randbytes(1_400_000)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve(OLD) as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "dogs.zip"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(retry_time, "sleep", waits.append)
    return waits


def fetch(server: FileServer, target: Path, url: str = "") -> None:
    data_download.download(url or server.url, target, report=lambda done, total: None)


def fail(server: FileServer, target: Path, url: str = "") -> str:
    with pytest.raises(NotReadyError) as refused:
        fetch(server, target, url)
    return str(refused.value) + refused.value.hint


def interrupted_after(count: int, server: FileServer, target: Path) -> None:
    """Leave what a first, broken-off run leaves."""
    server.script = [("cut", count)] + [503] * 5
    fail(server, target)
    assert not target.exists()
    assert target.with_name("dogs.zip.part").stat().st_size == count
    server.script = []
    server.requests.clear()


def test_the_file_appears_complete_and_its_part_vanishes(server: FileServer, target: Path) -> None:
    seen: list[tuple[int, int]] = []
    data_download.download(server.url, target, report=lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == OLD
    assert not target.with_name("dogs.zip.part").exists()
    assert seen[0] == (0, len(OLD)) and seen[-1] == (len(OLD), len(OLD))


@pytest.mark.parametrize("kind", ["cut", "reset"])
def test_a_broken_connection_is_taken_up_where_it_broke(server: FileServer, target: Path, kind: str) -> None:
    server.script = [(kind, 700_000), (kind, 300_000)]
    fetch(server, target)
    assert target.read_bytes() == OLD
    starts = [int(re.fullmatch(r"bytes=(\d+)-", head["Range"])[1]) for head in server.requests[1:] if "Range" in head]
    if kind == "cut":
        assert starts == [700_000, 1_000_000]  # not one byte twice
    assert all(head["If-Range"] == '"one"' for head in server.requests[1:] if "Range" in head)


def test_any_number_of_breaks_anywhere_leaves_the_file_whole(server: FileServer, target: Path) -> None:
    cuts = random.Random(3)
    server.script = [("cut", cuts.randrange(1, 100_000)) for _ in range(25)]
    fetch(server, target)
    assert target.read_bytes() == OLD
    assert len(server.requests) == 26


CHANGES = {
    "nothing": {},
    "the server sends less than the rest": {"range_limit": 250_000},
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
    interrupted_after(600_000, server, target)
    for name, value in CHANGES[change].items():
        setattr(server, name, value)
    fetch(server, target)
    assert server.requests[0]["Range"] == "bytes=600000-"
    assert target.read_bytes() == server.content


@pytest.mark.parametrize("etag", ["", 'W/"one"'])
def test_without_a_strong_etag_everything_is_sent_again(server: FileServer, target: Path, etag: str) -> None:
    server.etag, server.script = etag, [("cut", 900_000)]
    fetch(server, target)
    assert target.read_bytes() == OLD
    assert not any("Range" in head for head in server.requests)


def test_a_server_without_ranges_sends_everything_again(server: FileServer, target: Path) -> None:
    server.ranges, server.script = False, [("cut", 900_000)]
    fetch(server, target)
    assert target.read_bytes() == OLD


@pytest.mark.parametrize("record", ["{", '{"url": "http://other/dogs.zip", "size": 1500000, "etag": "\\"one\\""}'])
def test_a_part_of_who_knows_what_is_not_continued(server: FileServer, target: Path, record: str) -> None:
    interrupted_after(600_000, server, target)
    data_download.version_path(data_download.part_path(target)).write_text(record)
    fetch(server, target)
    assert target.read_bytes() == OLD
    assert "Range" not in server.requests[0]


def test_a_new_signature_in_the_address_does_not_start_over(server: FileServer, target: Path) -> None:
    interrupted_after(600_000, server, target)
    fetch(server, target, server.url + "?Signature=new")
    assert server.requests[0]["Range"] == "bytes=600000-"


def test_the_part_of_another_query_is_not_continued(server: FileServer, target: Path) -> None:
    interrupted_after(600_000, server, target)
    fetch(server, target, server.url + "?id=2")
    assert "Range" not in server.requests[0]


def test_what_is_complete_needs_no_request(server: FileServer, target: Path) -> None:
    interrupted_after(600_000, server, target)
    target.with_name("dogs.zip.part").write_bytes(OLD)  # killed between the last byte and the renaming
    fetch(server, target)
    assert target.read_bytes() == OLD
    mine = target.with_name("mine.zip")
    mine.write_bytes(b"a person put it there")
    fetch(server, mine)
    assert not server.requests
    assert mine.read_bytes() == b"a person put it there"


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_ends_it_at_once(server: FileServer, target: Path, status: int) -> None:
    server.script = [status] * 9
    assert f"answers {status}" in fail(server, target)
    assert len(server.requests) == 1


def test_busy_servers_are_asked_again_when_they_say(server: FileServer, target: Path, waits: list[float]) -> None:
    server.script, server.headers = [503, 429, 503], {"Retry-After": "7"}
    fetch(server, target)
    assert waits == [7, 7, 7]
    assert target.read_bytes() == OLD


def test_waits_double_and_attempts_end(server: FileServer, target: Path, waits: list[float]) -> None:
    server.script = [500] * 99
    assert "answers 500" in fail(server, target)
    assert waits == [2, 4, 8]  # after a second attempt at once
    assert len(server.requests) == 5


def test_breaking_off_at_the_same_place_for_ever_is_no_progress(server: FileServer, target: Path) -> None:
    server.ranges, server.script = False, [("cut", 500_000)] * 99
    assert "Given up after 5 attempts" in fail(server, target)
    assert len(server.requests) < 10


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"\r\n-1\r\n" + bytes(64_000_000),  # urllib3 would read all of it into memory
        CHUNKED + b"Content-Length: 1000\r\n\r\n-1\r\n" + bytes(64_000_000),
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n123456789",
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(64_000_000),
    ],
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


def test_nobody_listening_is_said_without_the_secrets_of_the_address(server: FileServer, target: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://user:hush@127.0.0.1:{nobody.getsockname()[1]}/dogs.zip?token=hush"
        message = fail(server, target, url)
    assert "refused" in message and "/dogs.zip" in message
    assert "hush" not in message and "object at" not in message


@pytest.mark.parametrize(
    "url",
    ["dogs.zip", "ftp://me:hush@example.org/dogs.zip", "http://", "file:///etc/passwd", "http://[::1", "http://a:hush"],
)
def test_what_is_no_web_address_is_refused(server: FileServer, target: Path, url: str) -> None:
    message = fail(server, target, url)
    assert "Nothing can be fetched from" in message
    assert "hush" not in message


def test_an_encrypted_address_must_not_lead_to_an_open_one(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = requests.Response()
    response.status_code, response.url = 200, "http://example.org/dogs.zip"
    monkeypatch.setattr(requests.Session, "get", lambda *_, **__: response)
    assert "without encryption" in fail(server, target, "https://example.org/dogs.zip")


@pytest.mark.parametrize(("free", "fits"), [(2 * len(OLD), True), (2 * len(OLD) - 1, False)])
def test_the_disk_must_have_room_for_the_archive_and_its_contents(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free))
    if fits:
        fetch(server, target)
    else:
        assert "are needed to download and unpack it" in fail(server, target)
    assert target.exists() == fits


def test_a_folder_that_cannot_be_written_is_named(server: FileServer, target: Path) -> None:
    assert "cannot be written" in fail(server, target.parent / "nowhere" / "dogs.zip")
