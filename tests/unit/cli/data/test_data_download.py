"""A download goes on where it stopped, never mixes two versions of a file, and knows when to give up."""

from __future__ import annotations

import random
import re
import shutil
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from file_server import FileServer, serve
from urllib3 import HTTPSConnectionPool
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import MaxRetryError, NameResolutionError, NewConnectionError

from cli.data import download as data_download
from cli.errors import NotReadyError

OLD, NEW = random.Random(1).randbytes(1_500_000), random.Random(2).randbytes(1_400_000)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve(OLD) as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "dogs.zip"


def fetch(server: FileServer, target: Path, url: str = "") -> None:
    data_download.download(url or server.url, target, report=lambda done, total: None, first_wait=0)


def fail(server: FileServer, target: Path, url: str = "") -> str:
    with pytest.raises(NotReadyError) as refused:
        fetch(server, target, url)
    return str(refused.value) + refused.value.hint


def interrupted_after(count: int, server: FileServer, target: Path) -> None:
    """Leave what a first, broken-off run leaves."""
    server.script = [("cut", count)] + [503] * 20
    fail(server, target)
    assert not target.exists()
    assert target.with_name("dogs.zip.part").stat().st_size == count
    server.script = []
    server.requests.clear()


def test_the_file_appears_complete_and_its_part_vanishes(server: FileServer, target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
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


def test_a_later_run_goes_on_from_the_part(server: FileServer, target: Path) -> None:
    interrupted_after(600_000, server, target)
    fetch(server, target)
    assert target.read_bytes() == OLD
    assert server.requests[0]["Range"] == "bytes=600000-"


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_anew(
    server: FileServer, target: Path, honours_if_range: bool
) -> None:
    interrupted_after(600_000, server, target)
    server.content, server.etag, server.honours_if_range = NEW, '"two"', honours_if_range
    fetch(server, target)
    assert target.read_bytes() == NEW


def test_another_etag_tells_a_change_that_kept_the_length(server: FileServer, target: Path) -> None:
    interrupted_after(600_000, server, target)
    server.content, server.etag, server.honours_if_range = OLD[::-1], '"two"', False
    fetch(server, target)
    assert target.read_bytes() == OLD[::-1]


def test_a_server_may_send_less_than_the_whole_rest(server: FileServer, target: Path) -> None:
    interrupted_after(600_000, server, target)
    server.range_limit = 250_000
    fetch(server, target)
    assert target.read_bytes() == OLD


def test_another_length_tells_a_change_where_the_rest_has_no_etag(server: FileServer, target: Path) -> None:
    interrupted_after(600_000, server, target)
    server.content, server.etag, server.last_modified, server.honours_if_range = NEW, "", "", False
    fetch(server, target)
    assert target.read_bytes() == NEW


def test_a_file_that_became_shorter_than_the_part_is_fetched_anew(server: FileServer, target: Path) -> None:
    interrupted_after(600_000, server, target)
    server.content, server.honours_if_range = NEW[:1000], False  # answers 416
    fetch(server, target)
    assert target.read_bytes() == NEW[:1000]


def test_a_server_without_ranges_sends_everything_again(server: FileServer, target: Path) -> None:
    server.ranges = False
    server.script = [("cut", 900_000)]
    fetch(server, target)
    assert target.read_bytes() == OLD


def test_without_etag_and_date_nothing_is_taken_up(server: FileServer, target: Path) -> None:
    server.etag = server.last_modified = ""
    interrupted_after(600_000, server, target)
    fetch(server, target)
    assert target.read_bytes() == OLD
    assert "Range" not in server.requests[0]


def test_a_weak_etag_does_not_vouch_for_bytes(server: FileServer, target: Path) -> None:
    server.etag = 'W/"one"'
    interrupted_after(600_000, server, target)
    fetch(server, target)
    assert server.requests[0]["If-Range"] == server.last_modified
    assert target.read_bytes() == OLD


def test_a_part_without_its_version_is_not_trusted(server: FileServer, target: Path) -> None:
    interrupted_after(600_000, server, target)
    data_download.version_path(target).write_text("{")
    fetch(server, target)
    assert target.read_bytes() == OLD
    assert "Range" not in server.requests[0]


def test_a_part_of_another_address_is_not_continued(server: FileServer, target: Path) -> None:
    interrupted_after(600_000, server, target)
    fetch(server, target, server.url + ".other")
    assert "Range" not in server.requests[0]


def test_a_new_signature_in_the_address_does_not_start_over(server: FileServer, target: Path) -> None:
    interrupted_after(600_000, server, target)
    fetch(server, target, server.url + "?Signature=new")
    assert server.requests[0]["Range"] == "bytes=600000-"


def test_a_part_that_was_complete_already_needs_no_request(server: FileServer, target: Path) -> None:
    interrupted_after(600_000, server, target)
    target.with_name("dogs.zip.part").write_bytes(OLD)  # killed between the last byte and the renaming
    fetch(server, target)
    assert not server.requests
    assert target.read_bytes() == OLD


def test_a_file_that_somebody_put_there_is_kept(server: FileServer, target: Path) -> None:
    target.write_bytes(b"mine")
    fetch(server, target)
    assert target.read_bytes() == b"mine"
    assert not server.requests


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_ends_it_at_once(server: FileServer, target: Path, status: int) -> None:
    server.script = [status] * 9
    assert f"answers {status}" in fail(server, target)
    assert len(server.requests) == 1


def test_busy_servers_are_asked_again_when_they_say(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(data_download.time, "sleep", waits.append)
    server.script, server.headers = [503, 429, 500], {"Retry-After": "7"}
    data_download.download(server.url, target, report=lambda done, total: None)
    assert waits == [7, 7, 7]
    assert target.read_bytes() == OLD


def test_waits_double_and_attempts_end(server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(data_download.time, "sleep", waits.append)
    server.script = [500] * 99
    with pytest.raises(NotReadyError, match="500"):
        data_download.download(server.url, target, report=lambda done, total: None)
    assert waits == [1, 2, 4, 8]


def test_breaking_off_at_the_same_place_for_ever_is_no_progress(server: FileServer, target: Path) -> None:
    server.ranges = False
    server.script = [("cut", 500_000)] * 99
    assert "Given up after 5 attempts" in fail(server, target)
    assert len(server.requests) < 10


def test_a_compressed_answer_is_refused(server: FileServer, target: Path) -> None:
    server.headers = {"Content-Encoding": "gzip"}
    assert "compressed" in fail(server, target)
    assert not target.exists()


def test_nobody_listening_is_said_without_the_secrets_of_the_address(server: FileServer, target: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://user:hush@127.0.0.1:{nobody.getsockname()[1]}/dogs.zip?token=hush"
        message = fail(server, target, url)
    assert "refused" in message and "/dogs.zip" in message
    assert "hush" not in message


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            NameResolutionError("example.org", HTTPSConnection("example.org"), socket.gaierror(-2, "unknown name")),
            "Failed to resolve 'example.org' ([Errno -2] unknown name)",
        ),
        (NewConnectionError(HTTPSConnection("example.org"), "Connection refused"), "Connection refused"),
    ],
)
def test_the_reason_of_a_failed_connection_is_told_without_the_library_s_objects(error: Exception, told: str) -> None:
    wrapped = requests.ConnectionError(MaxRetryError(HTTPSConnectionPool("example.org"), "/dogs.zip", error))
    assert data_download._reason(wrapped) == told


@pytest.mark.parametrize("url", ["dogs.zip", "ftp://example.org/dogs.zip", "http://", "file:///etc/passwd"])
def test_what_is_no_web_address_is_refused(server: FileServer, target: Path, url: str) -> None:
    assert "Nothing can be fetched from" in fail(server, target, url)


def test_an_encrypted_address_must_not_lead_to_an_open_one(tmp_path: Path) -> None:
    response = requests.Response()
    response.status_code, response.url = 200, "http://example.org/dogs.zip"
    part = data_download._Part(tmp_path / "dogs.zip", "https://example.org/dogs.zip")
    with pytest.raises(NotReadyError, match="without encryption"):
        data_download._check_status(response, part, "https://example.org/dogs.zip")


@pytest.mark.parametrize(("contents", "free", "fits"), [(False, len(OLD), True), (True, len(OLD), False),
                                                        (True, 2 * len(OLD), True), (False, 1000, False)])  # fmt: skip
def test_the_disk_is_measured_first(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch, contents: bool, free: int, fits: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free))

    def run() -> None:
        data_download.download(server.url, target, report=lambda done, total: None, room_for_contents=contents)

    if fits:
        run()
    else:
        with pytest.raises(NotReadyError, match="are needed to download"):
            run()
    assert target.exists() == fits


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_chunk_of_less_than_nothing_is_not_read_into_memory(server: FileServer, target: Path) -> None:
    server.script = [CHUNKED + b"-1\r\n" + bytes(64_000_000)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    try:
        fetch(server, target)  # at the second attempt
        assert tracemalloc.get_traced_memory()[1] - before < 16_000_000
    finally:
        tracemalloc.stop()
    assert target.read_bytes() == server.content


def test_a_file_without_a_length_takes_half_of_the_free_disk_at_most(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = CHUNKED + b"186a0\r\n" + bytes(100_000) + b"\r\n0\r\n\r\n"
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=199_998))
    server.script = [answer]
    assert "half of the free disk" in fail(server, target)
    assert not list(target.parent.iterdir())
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=200_000))
    server.script = [answer]
    fetch(server, target)
    assert target.read_bytes() == bytes(100_000)


def test_a_folder_that_cannot_be_written_is_named(server: FileServer, target: Path) -> None:
    assert "cannot be written" in fail(server, target.parent / "nowhere" / "dogs.zip")


def test_killed_it_goes_on(server: FileServer, target: Path) -> None:
    server.script = [("stall", 1_000_000)]
    program = (
        "import sys; from pathlib import Path; from cli.data.download import download\n"
        "download(sys.argv[1], Path(sys.argv[2]), report=lambda done, total: print(done, flush=True))"
    )
    process: Any = subprocess.Popen(
        [sys.executable, "-c", program, server.url, str(target)], stdout=subprocess.PIPE, text=True
    )
    with process:
        while int(process.stdout.readline()) < 700_000:
            pass
        process.kill()
    server.released.set()
    assert not target.exists()
    fetch(server, target)
    assert target.read_bytes() == OLD
    assert int(server.requests[-1]["Range"].removeprefix("bytes=").rstrip("-")) > 400_000
