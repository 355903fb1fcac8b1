"""Log lines and checkpoints reach their place while a program runs, and never stand in its way."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import FakeS3, full_disk
from waiting import wait_until

from emulator.sagemaker.logs import LogStream
from emulator.sagemaker.training import checkpoints
from emulator.sagemaker.training.checkpoints import CheckpointSync


class FakeLogs:
    """CloudWatch Logs with the limits of PutLogEvents."""

    def __init__(self, fail_first: int = 0) -> None:
        self.events: list[str] = []
        self.created: list[Any] = []
        self.failures = fail_first

    def create_log_group(self, **names: str) -> None:
        self.created.append(names)

    create_log_stream = create_log_group

    def put_log_events(self, *, logGroupName: str, logStreamName: str, logEvents: list[dict[str, Any]]) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("not now")
        assert 0 < len(logEvents) <= 10_000
        assert sum(len(event["message"].encode()) + 26 for event in logEvents) <= 1_048_576
        assert all(event["message"] for event in logEvents)
        self.events += [event["message"] for event in logEvents]


def stream(client: Any, path: Path) -> LogStream:
    return LogStream(lambda: client, "group", "stream", path)


def test_lines_arrive_while_the_program_still_runs_and_again_when_they_were_not_taken(tmp_path: Path) -> None:
    client = FakeLogs(fail_first=1)
    log = stream(client, tmp_path / "log")
    log.write("first")
    wait_until(lambda: client.events == ["first"])
    log.write("")
    log.close()
    assert client.events == ["first", " "]
    assert client.created[-2:] == [{"logGroupName": "group"}, {"logGroupName": "group", "logStreamName": "stream"}]
    assert (tmp_path / "log").read_text() == "first\n\n"


def test_a_flood_is_sent_in_batches_that_cloudwatch_takes(tmp_path: Path) -> None:
    client = FakeLogs()
    log = stream(client, tmp_path / "log")
    lines = [f"{number} {'é' * (number % 300)}" for number in range(15_000)] + ["x" * 65_000] * 40
    for line in lines:
        log.write(line)
    log.close(timeout=30)
    assert client.events == lines


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    log = stream(FakeLogs(), tmp_path / "log")
    for _ in range(240):
        log.write("x" * 50_000)
    log.close()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"log", "log.1"}
    assert max(sizes.values()) < 5.1 * 2**20


def test_while_the_disk_is_full_the_file_does_without_lines_and_says_so(tmp_path: Path) -> None:
    client = FakeLogs()
    log = stream(client, tmp_path / "folder" / "log")
    log.write("before")
    with full_disk():
        log.write("lost")
        log.write("lost too")
    log.write("after")
    with full_disk():
        log.write("lost at the end")
        log.close()
    assert client.events == ["before", "lost", "lost too", "after", "lost at the end"]
    lines = list(filter(None, (tmp_path / "folder" / "log").read_text().splitlines()))
    assert lines == ["before", "[local AWS] 2 lines are missing here: the disk was full", "after"]


@pytest.fixture(autouse=True)
def quick_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SYNC_SECONDS", 0.05)


def test_new_checkpoints_are_uploaded_while_the_program_runs(tmp_path: Path) -> None:
    s3 = FakeS3(**{"ckpt/old": b"old"})
    sync = CheckpointSync(s3, "s3://bucket/ckpt/", [tmp_path], "job")
    sync.download()
    with sync.syncing():
        (tmp_path / "new").write_bytes(b"new")
        wait_until(lambda: s3.objects.get("ckpt/new") == b"new")
        (tmp_path / "new").write_bytes(b"newer")
        wait_until(lambda: s3.objects.get("ckpt/new") == b"newer")
        (tmp_path / "last").write_bytes(b"last")
    assert s3.objects == {"ckpt/old": b"old", "ckpt/new": b"newer", "ckpt/last": b"last"}
    assert "ckpt/old" not in s3.uploads, "what came from S3 need not go back"


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
    assert CheckpointSync(s3, "s3://bucket/ckpt/", [second], "job").download() == 2000.5
    assert CheckpointSync(s3, "s3://bucket/ckpt/", [second], "another-job").download() == 0


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


def test_a_checkpoint_waits_for_its_record_and_is_tried_again_when_its_upload_fails(tmp_path: Path) -> None:
    failures = [OSError("no space")] * 3

    def fail_at_first(*_: Any, **__: Any) -> None:
        if failures:
            raise failures.pop()

    class Flaky(FakeS3):
        def upload_fileobj(self, *arguments: Any, **options: Any) -> None:
            fail_at_first()
            super().upload_fileobj(*arguments, **options)

    for s3, save in ((FakeS3(), fail_at_first), (Flaky(), lambda: None)):
        failures[:] = [OSError("no space")] * 3
        (tmp_path / "state").write_bytes(b"s")
        with CheckpointSync(s3, "s3://bucket", [tmp_path], "job", save).syncing():
            wait_until(lambda s3=s3: s3.objects == {"state": b"s"})
        assert not failures


def test_a_location_without_a_slash_at_its_end_also_stands_for_its_siblings(tmp_path: Path) -> None:
    s3 = FakeS3(**{"ckpt/job/state": b"1", "ckpt/job-2/state": b"2"})
    folders = [tmp_path / "algo-1", tmp_path / "algo-2"]
    sync = CheckpointSync(s3, "s3://bucket/ckpt/job", folders, "job")
    sync.download()
    for folder in folders:
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert found == {"state", "job-2/state"}, "as on AWS"
    (folders[0] / "new").touch()
    with sync.syncing():
        pass
    assert s3.uploads == ["ckpt/job/new"]
