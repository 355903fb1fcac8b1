"""Log lines and checkpoints reach their place while a program runs, and never stand in its way."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import FakeRole, FakeS3
from waiting import wait_until

from emulator.sagemaker.logs import LogStream
from emulator.sagemaker.training import checkpoints
from emulator.sagemaker.training.checkpoints import CheckpointSync


class FakeLogs:
    """CloudWatch Logs, which fails the first time that it is given lines."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.failed = False

    def create_log_group(self, **names: str) -> None:
        pass

    create_log_stream = create_log_group

    def put_log_events(self, *, logGroupName: str, logStreamName: str, logEvents: list[dict[str, Any]]) -> None:
        if not self.failed:
            self.failed = True
            raise ConnectionError("not now")
        assert all(event["message"] for event in logEvents)
        self.events += [event["message"] for event in logEvents]


def test_lines_arrive_while_the_program_still_runs_and_again_when_they_were_not_taken() -> None:
    client = FakeLogs()
    log = LogStream(FakeRole(client), "group", "stream")
    log.write("first")
    wait_until(lambda: client.events == ["first"])
    log.write("")
    log.close()
    assert client.events == ["first", " "]


@pytest.fixture(autouse=True)
def quick_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SYNC_SECONDS", 0.05)


def test_a_checkpoint_says_when_it_was_written(tmp_path: Path) -> None:
    s3 = FakeS3(**{"ckpt/somebody-elses": b"old"})
    saved: list[list[str]] = []
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    sync = CheckpointSync(s3, "s3://bucket/ckpt/", [first], "job", lambda: saved.append(list(s3.uploads)))
    assert sync.download() == 0
    with sync.syncing():
        for name, moment in (("newer", 2000.5), ("older", 1000.0)):
            (first / name).write_bytes(b"state")
            os.utime(first / name, (moment, moment))
    assert saved[0] == [], "what has to be kept before a checkpoint is uploaded is kept before"
    for job, written in (("job", 2000.5), ("another-job", 0)):
        assert CheckpointSync(s3, "s3://bucket/ckpt/", [second], job).download() == written


def test_a_file_that_is_being_written_waits_and_one_that_is_replaced_does_not(tmp_path: Path) -> None:
    s3, done = FakeS3(), threading.Event()

    def write() -> None:
        number = 0
        with (tmp_path / "big").open("wb") as file:
            while not done.wait(0.001):
                file.write(b"x")
                file.flush()
                number += 1
                (tmp_path / ".new").write_text(f"{number:06d}")
                (tmp_path / ".new").replace(tmp_path / "state")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with CheckpointSync(s3, "s3://bucket/ckpt", [tmp_path], "job").syncing():
            wait_until(lambda: "ckpt/state" in s3.objects)
            assert len(s3.objects["ckpt/state"]) == 6
            assert "ckpt/big" not in s3.objects
            done.set()
            writer.join()
    finally:
        done.set()
    assert s3.objects["ckpt/big"] == (tmp_path / "big").read_bytes()


@pytest.mark.parametrize("failing", ["the record", "the upload"])
def test_a_checkpoint_waits_for_its_record_and_is_tried_again_when_its_upload_fails(
    tmp_path: Path, failing: str
) -> None:
    failures = [OSError("no space")] * 3

    def attempt(what: str) -> None:
        if what == failing and failures:
            raise failures.pop()

    class Flaky(FakeS3):
        def upload_fileobj(self, *arguments: Any, **options: Any) -> None:
            attempt("the upload")
            super().upload_fileobj(*arguments, **options)

    s3 = Flaky()
    (tmp_path / "state").write_bytes(b"s")
    with CheckpointSync(s3, "s3://bucket", [tmp_path], "job", lambda: attempt("the record")).syncing():
        wait_until(lambda: s3.objects == {"state": b"s"})
    assert not failures
